//! A VMM of many vCPUs that cost next to nothing: the rig's VM, each vCPU held to a page or so in a while.

use std::io::{self, Read as _};

use anyhow::Context;
use dirtyrig_limiter::{limit::Which, units::Quota};
use dirtyrig_rig::{
    engine::limits::Whom,
    scenario::{End, Scenario, settings::Settings},
    session::build_target,
};

/// By which this benchmark is told to be one.
pub(super) const FLAG: &str = "--vmm";
/// What it says once its guests run.
pub(super) const READY: &str = "ready";
/// 64 pages per second and vCPU, in one burst: few exits, and yet something to be seen each second.
const QUOTA: f64 = 0.25;

/// Runs it until its stdin is closed.
pub(super) fn run(vcpus: u32) -> anyhow::Result<()> {
    let settings = format!(
        "limiter = 'budget'\nmax-stall = '500ms'\nring = 1024\nvcpus = {vcpus}\nmemory = 16\nguest = 'sequential'\nprobes = 'off'"
    );
    let settings: Settings = toml::from_str(&settings).with_context(|| format!("bad settings:\n{settings}"))?;
    let scenario = Scenario::new(&settings, 1, End::WhenTold)?;
    let target = build_target(&scenario.vm)?;
    target.limits().set(Whom::Vcpus(Which::All), Quota::new(QUOTA)?)?;
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new())?;
    target.stop()
}
