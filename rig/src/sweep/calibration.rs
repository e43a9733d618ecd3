//! What one vCPU dirties when nothing limits it: hosts differ by a factor of ten, and plans depend on it.

use std::time::Duration;

use anyhow::Context;
use dirtyrig_limiter::law::LimiterKind;

use super::execute::{Build, run_on};
use crate::{
    engine::{cell::Watch, interrupt::Clock, sink::Discard},
    model::Sample,
    scenario::{
        End, Scenario,
        per_vcpu::{MaybeQuota, PerVcpu},
        probe_mode::ProbeMode,
        script::Event,
        settings::Settings,
        values::Span,
        warm_up,
    },
};

/// How long it takes: two seconds of measurement after one in which the machine gets warm.
const LENGTH: Duration = Duration::from_secs(3);
/// What follows the warm-up, in which the rate is measured, is of no interest.
const AFTER: Duration = Duration::from_millis(100);

struct Unwatched;

impl Watch for Unwatched {
    fn sampled(&mut self, _: &[Sample]) {}

    fn changed(&mut self, _: Event) {}
}

/// The rate in MiB/s of the fastest vCPU of the guest that `settings` describe, without limit and with the ring on.
pub fn unlimited_mib_s(settings: &Settings, build: Build<'_>, clock: &dyn Clock) -> anyhow::Result<f64> {
    let cycle = settings.guest.iter().flat_map(|guest| guest.spread(guest.given()));
    let cycle = cycle.filter_map(|program| program.cycle()).max();
    let settings = Settings {
        limiter: vec![LimiterKind::None],
        quota: vec![PerVcpu::all(MaybeQuota(None))],
        at: Vec::new(),
        warm_up: Some(Span(warm_up(LENGTH, cycle))),
        duration: Some(Span(AFTER)),
        probes: Some(ProbeMode::Off),
        ..settings.clone()
    };
    let scenario = Scenario::new(&settings, settings.seed.unwrap_or_default(), End::AtDuration)?;
    let target = build(&scenario.vm).context("can't start the guest")?;
    let (result, _) = run_on(target, (0, 0), &scenario, &mut Discard, &mut Unwatched, clock)?;
    let fastest = result.unlimited_mib_s.into_iter().flatten().fold(0.0, f64::max);
    anyhow::ensure!(
        fastest > 0.0,
        "the guest dirtied nothing in {}: choose one that writes, such as `--guest sequential`",
        humantime::format_duration(scenario.warm_up)
    );
    Ok(fastest)
}
