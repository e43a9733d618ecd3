//! Real migrations between two QEMUs, judged by the guest's own counters in both memories.
//!
//! `DIRTYRIG_QEMU` names more QEMUs than the one along `PATH`, a list as that is one.

mod command;
mod faults;
mod kept;

use std::{env, path::PathBuf, time::Duration};

use dirtyrig_guests::Program;
use dirtyrig_rig::{
    migrate::{
        bandwidth::Bandwidth,
        cell::{self, Setup},
        course::Pass,
        drive::{Now, Watch},
        error::MigrateError,
        pair::Guest,
        promise::Promise,
        strategy::Strategy,
    },
    qemu::binary::Binary,
};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;

const NEEDS: &[Need] = &[Need::Kvm, Need::Bpf, Need::Qemu];

fn main() {
    let mut trials = Vec::new();
    for path in binaries() {
        let name = path
            .as_ref()
            .map_or("the one on the path".to_owned(), |path| path.display().to_string());
        let mut each = |what: &str, test: fn(&Binary) -> Result<(), Failed>| {
            let path = path.clone();
            trials.push(trial(&format!("{name}: {what}"), NEEDS, move || {
                test(&Binary::find(path.as_deref())?)
            }));
        };
        each("a promise is kept", kept::a_promise_is_kept);
        each("a guest that is limited from the start", kept::limited_from_the_start);
        each("without a limit it never ends", kept::without_a_limit_it_never_ends);
        each(
            "what can't be kept is not promised",
            kept::what_can_not_be_kept_is_refused,
        );
        each("a receiver that is killed", faults::the_receiver_is_killed);
        each("a link that is cut", faults::the_link_is_cut);
        each("a link that slows down", faults::the_link_slows_down);
        each("a paused VM and a second migration", faults::paused_or_under_way);
        each("an interrupt", faults::interrupted);
        each("a running QEMU by the command", command::a_running_qemu_is_migrated);
        each(
            "a migration of somebody else's by the command",
            command::a_migration_of_somebody_elses_is_followed,
        );
        each("the command interrupted", command::interrupted_it_leaves_the_guest_free);
        each("the command killed", command::killed_it_leaves_the_guest_free);
        each("what the command refuses", command::what_can_not_be_is_told);
    }
    run(trials);
}

fn binaries() -> Vec<Option<PathBuf>> {
    let more = env::var_os("DIRTYRIG_QEMU").unwrap_or_default();
    let more = env::split_paths(&more).filter(|path| !path.as_os_str().is_empty());
    [None].into_iter().chain(more.map(Some)).collect()
}

const MEMORY_MIB: u64 = 64;
const LINK_MIB_S: u64 = 48;

/// A guest of 64 MiB that writes as fast as it can, over a link that it outruns.
fn setup(strategy: Strategy) -> Setup {
    Setup {
        guest: Guest {
            programs: vec![Program::Sequential],
            memory_mib: MEMORY_MIB,
            ring_entries: 4096,
            seed: 1,
        },
        link: Bandwidth::of_bytes(LINK_MIB_S << 20),
        strategy,
        promise: Promise {
            within: Duration::MAX,
            downtime: Duration::from_millis(400),
        },
        max_stall: Duration::from_millis(5),
        give_up: Duration::from_mins(1),
    }
}

/// The same with a total time that is so many times the least.
fn promised(times: f64) -> Result<Setup, Failed> {
    let mut setup = setup(Strategy::Dirtyrig);
    setup.promise.within = Duration::from_millis(1);
    let least = match cell::plan(&setup) {
        Err(MigrateError::NotPromised { refusal, .. }) => refusal.within.ok_or("no total time would do")?,
        other => return Err(format!("a millisecond for all of it: {other:?}").into()),
    };
    setup.promise.within = least.mul_f64(times);
    Ok(setup)
}

/// Remembers what it is told.
#[derive(Debug, Default)]
struct Told {
    passes: Vec<Pass>,
    said: Vec<String>,
    highest_quota: f64,
}

impl Watch for Told {
    fn pass(&mut self, pass: &Pass) -> anyhow::Result<()> {
        self.passes.push(*pass);
        Ok(())
    }

    fn progress(&mut self, now: &Now) -> anyhow::Result<()> {
        self.highest_quota = now.quota.map_or(0.0, |quota| quota.0).max(self.highest_quota);
        Ok(())
    }

    fn said(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }
}
