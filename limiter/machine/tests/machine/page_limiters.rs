//! The limiters that charge a vCPU by the page: exact, at once, and no less than the quota.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{DirtySink, law::LimiterKind, limit::Which};
use dirtyrig_machine::Machine;
use dirtyrig_ring::DirtyPage;
use dirtyrig_testkit::{Need, trial};
use libtest_mimic::{Failed, Trial};

use crate::{eventually, quota, speed::Speed, support::Small, written};

pub(crate) fn trials() -> Vec<Trial> {
    const KVM: &[Need] = &[Need::Kvm];
    const BPF: &[Need] = &[Need::Kvm, Need::Bpf];
    let mut trials = vec![trial(
        "resets_come_once_in_ten_milliseconds",
        KVM,
        resets_come_once_in_ten_milliseconds,
    )];
    for (kind, needs) in [(LimiterKind::Budget, KVM), (LimiterKind::BudgetEbpf, BPF)] {
        trials.push(trial(&format!("{kind}_lets_a_guest_run"), needs, move || {
            a_quota_out_of_reach_is_none(kind)
        }));
    }
    for (kind, needs) in [
        (LimiterKind::Budget, KVM),
        (LimiterKind::BudgetEbpf, BPF),
        (LimiterKind::DirtyQuota, KVM),
        (LimiterKind::Ballast, KVM),
    ] {
        trials.push(trial(&format!("{kind}_makes_ring_and_guest_agree"), needs, move || {
            held_back_entries_make_ring_and_guest_agree(kind)
        }));
        trials.push(trial(&format!("{kind}_acts_at_once"), needs, move || {
            a_set_acts_at_once(kind)
        }));
        if kind.limits_whole_vm() {
            trials.push(trial(&format!("{kind}_shares_one_quota"), needs, move || {
                one_quota_is_shared(kind)
            }));
        }
    }
    trials
}

fn held_back_entries_make_ring_and_guest_agree(kind: LimiterKind) -> Result<(), Failed> {
    let speed = Speed::measure()?;
    // From a page or two per exit to hundreds on a fast host.
    for quota in [0.0005, 0.015, 0.125].map(|share| speed.share(share)) {
        let machine = Small::new(4096, kind).build(None);
        machine.limit().set(Which::All, quota)?;
        machine.plug(0);
        eventually("many pauses", || machine.stats(0).slept > Duration::from_millis(300));
        machine.unplug(0);
        machine.flush()?;
        let (harvested, written) = (machine.harvested(0).0, written(&machine, 0));
        assert!(
            harvested.abs_diff(written) <= 1,
            "{quota:?}: harvested {harvested}, written {written}"
        );
        machine.stop()?;
    }
    Ok(())
}

/// When entries were given back: those of one reset come within a millisecond of each other.
#[derive(Clone, Default)]
struct Resets(Arc<Mutex<Vec<Instant>>>);

impl DirtySink for Resets {
    fn dirty(&self, _: usize, _: DirtyPage) {
        let (mut resets, now) = (self.0.lock().unwrap(), Instant::now());
        match resets.last_mut() {
            Some(last) if now.duration_since(*last) < Duration::from_millis(1) => *last = now,
            _ => resets.push(now),
        }
    }
}

/// A reset flushes the translations of every vCPU; a deadline comes several times in a burst of five milliseconds.
fn resets_come_once_in_ten_milliseconds() -> Result<(), Failed> {
    let resets = Resets::default();
    let machine = Small::new(4096, LimiterKind::Budget).build(Some(Box::new(resets.clone())));
    machine.limit().set(Which::All, Speed::measure()?.at_most(25.0))?;
    let begin = Instant::now();
    machine.plug(0);
    eventually("many pauses", || machine.stats(0).slept > Duration::from_secs(1));
    machine.unplug(0);
    let most = begin.elapsed().as_secs_f64() / 0.01;
    machine.flush()?;
    let resets = resets.0.lock().unwrap().len() as f64;
    // Beside them that of the flush, and the reaper's, twice a second.
    let beside = 1.0 + 2.0 * begin.elapsed().as_secs_f64();
    assert!(resets > 20.0, "{resets} resets");
    assert!(resets <= most + beside, "{resets} resets where {most} are due");
    machine.stop()?;
    Ok(())
}

/// A grant that is never spent: the vCPU runs on, while its ring is emptied many times. On a fast host that is because it is
/// full; a slow one doesn't fill it before a deadline comes.
fn a_quota_out_of_reach_is_none(kind: LimiterKind) -> Result<(), Failed> {
    const RING: u32 = 1024;
    let machine = Small::new(RING, kind).build(None);
    machine.limit().set(Which::All, quota(1e6))?;
    machine.plug(0);
    eventually("many pages through the ring", || {
        machine.harvested(0).0 > 50 * u64::from(RING)
    });
    assert_eq!(machine.stats(0).asked, Duration::ZERO);
    machine.stop()?;
    Ok(())
}

/// A vCPU has dirtied more, unlimited, than its quota allows in minutes: none of it is charged, whether the limit is the
/// first one, comes again after a cancel, or is one of the whole machine.
fn a_set_acts_at_once(kind: LimiterKind) -> Result<(), Failed> {
    /// Pages that wait in the ring when the limit comes: two minutes' worth.
    const UNHARVESTED: u64 = 30_000;
    let speed = Speed::measure()?;
    let quota = speed.at_most(1.0);
    let overrun = Duration::from_secs_f64(speed.overrun() / quota.rate().pages_per_sec());
    let mut small = Small::new(65536, kind);
    small.pages_each = 2 * 65536;
    // The reaper stays out of it.
    small.period = Duration::from_secs(60);
    let machine = small.build(None);
    machine.plug(0);
    for round in 0..3 {
        eventually("many pages in the ring", || {
            written(&machine, 0) - machine.harvested(0).0 >= UNHARVESTED
        });
        let of_machine = round == 1 && kind.limits_whole_vm();
        let slept = machine.stats(0).slept;
        if of_machine {
            machine.limit().set_vm(quota)?;
        } else {
            machine.limit().set(Which::All, quota)?;
        }
        eventually("a throttled vCPU", || machine.stats(0).slept > slept);
        let asked = machine.stats(0).last_asked;
        assert!(asked < overrun, "round {round}: asked to sleep {asked:?}");
        let before = written(&machine, 0);
        if of_machine {
            machine.limit().cancel_vm();
        } else {
            machine.limit().cancel(Which::All)?;
        }
        eventually("a free vCPU", || written(&machine, 0) > before + 4096);
    }
    machine.stop()?;
    Ok(())
}

/// Pages that each of two vCPUs writes while both together write `pages`, and the time that this takes.
fn both(machine: &Machine, what: &str, pages: u64) -> ([u64; 2], Duration) {
    let now = || [written(machine, 0), written(machine, 1)];
    let (before, begin) = (now(), machine.now());
    let mut after = before;
    eventually(what, || {
        after = now();
        after.iter().sum::<u64>() >= before.iter().sum::<u64>() + pages
    });
    let span = machine.now().saturating_sub(begin);
    ([after[0] - before[0], after[1] - before[1]], span)
}

/// Two writers under one quota: in no time do they write more than it allows, together, and they share it fairly; the
/// share of one that is out of the guest goes to the other; limits of their own hold beside it.
fn one_quota_is_shared(kind: LimiterKind) -> Result<(), Failed> {
    /// The share of what comes in that is written at least, in one of so many tries.
    const AT_LEAST: f64 = 0.9;
    const TRIES: usize = 30;
    let speed = Speed::measure()?;
    let vm_quota = speed.at_most(20.0);
    let income = vm_quota.rate().pages_per_sec();
    // Twice what comes in during the longest stall, and what may be dirtied before a deadline's exit.
    let burst = income * 0.010 + speed.overrun();

    let mut small = Small::new(4096, kind);
    // No deeper than pauses need: what a busy host keeps the vCPUs from is not made up in a later window.
    small.burst = Duration::from_millis(10);
    small.programs = vec![Program::Sequential; 2];
    let machine = small.build(None);
    machine.limit().set_vm(vm_quota)?;
    assert_eq!(machine.limit().vm_quota(), Some(vm_quota));
    machine.plug(0);
    machine.plug(1);
    both(&machine, "a first round", 2048);

    // Never more than the quota; as much, though not while the machine is busy otherwise.
    let held = |what: &str| {
        for _ in 0..TRIES {
            let (pages, span) = both(&machine, what, 2 * (income as u64));
            let (sum, due) = ((pages[0] + pages[1]) as f64, income * span.as_secs_f64());
            assert!(sum < due + burst, "{what}: {sum} pages of {due:.0} in {span:?}");
            if sum >= AT_LEAST * due {
                return pages;
            }
        }
        panic!("{what}: less than {AT_LEAST} of the quota, {TRIES} times");
    };
    let pages = held("both");
    assert!(
        pages[0].abs_diff(pages[1]) < (pages[0] + pages[1]) / 5,
        "unfair: {pages:?}"
    );

    machine.unplug(1);
    both(&machine, "a free share", 512);
    assert_eq!(held("one alone")[1], 0, "an unplugged vCPU runs");

    // A quarter for vCPU 1, whatever the machine has left: three quarters for vCPU 0.
    machine.plug(1);
    machine
        .limit()
        .set(Which::One(1), quota(vm_quota.mib_per_sec() / 4.0))?;
    both(&machine, "mixed limits", 2048);
    let pages = held("mixed");
    assert!(
        pages[1] * 2 < pages[0],
        "vCPU 1 has a quarter, by its own limit: {pages:?}"
    );
    machine.stop()?;
    Ok(())
}
