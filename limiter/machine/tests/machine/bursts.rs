//! Guests that write and wait, under the limiters that save up what they leave of their quota meanwhile.

use std::{thread, time::Duration};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{law::LimiterKind, limit::Which, units::PAGES_PER_MIB};
use dirtyrig_testkit::{Need, trial};
use libtest_mimic::{Failed, Trial};

use crate::{
    eventually, quota,
    support::{Small, block},
    written,
};

pub(crate) fn trials() -> Vec<Trial> {
    const KVM: &[Need] = &[Need::Kvm];
    const BPF: &[Need] = &[Need::Kvm, Need::Bpf];
    let mut trials = Vec::new();
    for (kind, needs) in [
        (LimiterKind::Budget, KVM),
        (LimiterKind::BudgetEbpf, BPF),
        (LimiterKind::Ballast, KVM),
    ] {
        trials.push(trial(&format!("{kind}_lets_a_guest_wait"), needs, move || {
            a_guest_that_waits_gets_its_quota(kind)
        }));
        trials.push(trial(&format!("{kind}_forgets_savings_at_once"), needs, move || {
            a_smaller_burst_acts_at_once(kind)
        }));
    }
    trials
}

/// Pages that are written as fast as can be, the wait that follows, and the quota as a share of what that is alone.
const ON_AND_OFF: [(u64, Duration, f64); 4] = [
    (5000, Duration::from_millis(100), 0.8),
    (1000, Duration::from_millis(20), 0.5),
    (170, Duration::from_millis(6), 0.8),
    (50, Duration::from_millis(1), 0.5),
];

/// Each time that such a guest is paused it has dirtied what came in, whatever kept it from that before: nothing was lost
/// while it waited. Out of a bucket of two pauses' depth the first does half to three quarters of its quota.
fn a_guest_that_waits_gets_its_quota(kind: LimiterKind) -> Result<(), Failed> {
    const TRIES: u32 = 4;
    for (pages, pause, share) in ON_AND_OFF {
        let mut small = Small::new(4096, kind);
        small.programs = vec![Program::Burst { pages, pause }];
        let machine = small.build(None);
        machine.plug(0);
        eventually("a write to every page", || written(&machine, 0) > small.pages_each);
        let (begin, before) = (machine.now(), written(&machine, 0));
        eventually("a cycle or more", || written(&machine, 0) > before + 10_000);
        let alone = (written(&machine, 0) - before) as f64 / machine.now().saturating_sub(begin).as_secs_f64();
        let asked = share * alone / PAGES_PER_MIB as f64;
        machine.limit().set(Which::All, quota(asked))?;
        let (begin, before) = (machine.now(), written(&machine, 0));
        // A busy host may be late to look, after the guest's next wait has begun. What is lost stays lost.
        let mut seen = Vec::new();
        let held = (0..TRIES).find(|_| {
            thread::sleep(Duration::from_secs(1));
            let slept = machine.stats(0).slept;
            eventually("a pause", || machine.stats(0).slept > slept);
            let due = share * alone * machine.now().saturating_sub(begin).as_secs_f64();
            let done = (written(&machine, 0) - before) as f64;
            seen.push(done / due);
            (done / due - 1.0).abs() < 0.03
        });
        assert!(
            held.is_some(),
            "{pages} pages, then {pause:?}: {seen:?} of {asked:.1} MiB/s"
        );
        machine.stop()?;
    }
    Ok(())
}

/// What a vCPU saved up goes when its burst is made smaller, and what it has been granted of that as well.
fn a_smaller_burst_acts_at_once(kind: LimiterKind) -> Result<(), Failed> {
    /// MiB/s.
    const QUOTA: f64 = 20.0;
    let mut small = Small::new(65536, kind);
    small.burst = Duration::from_secs(60);
    // A third of it at the most.
    small.programs = vec![Program::Burst {
        pages: 16,
        pause: Duration::from_millis(10),
    }];
    let machine = small.build(None);
    machine.limit().set(Which::All, quota(QUOTA))?;
    assert_eq!(machine.limit().burst(), Some(small.burst));
    machine.plug(0);
    eventually("savings of three seconds", || {
        machine.now() > Duration::from_millis(4500)
    });
    machine.unplug(0);
    let flat_out = Program::Burst {
        pages: u64::MAX,
        pause: Duration::ZERO,
    };
    flat_out.configure(block(&machine, 0), small.region(0), 1, machine.tsc_hz());
    machine.limit().set_burst(Duration::from_millis(10))?;
    assert_eq!(machine.limit().burst(), Some(Duration::from_millis(10)));
    let (begin, before, slept) = (machine.now(), written(&machine, 0), machine.stats(0).slept);
    machine.plug(0);
    eventually("a pause", || machine.stats(0).slept > slept);
    let (done, span) = (written(&machine, 0) - before, machine.now().saturating_sub(begin));
    // The burst, and what may be dirtied before a deadline's exit: 10 ms of a fast guest. Saved up were 15,000 pages.
    let most = QUOTA * PAGES_PER_MIB as f64 * (span.as_secs_f64() + 0.01) + 4096.0;
    assert!((done as f64) < most, "{done} pages of {most:.0}");
    machine.stop()?;
    Ok(())
}
