//! The machine on real KVM: nothing dirtied is lost, every command takes effect at once.

mod bursts;
mod page_limiters;
mod ring_sleep;
mod speed;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{
    DirtySink, Phase,
    law::LimiterKind,
    limit::{LimitError, Which},
    units::Quota,
};
use dirtyrig_machine::Machine;
use dirtyrig_ring::DirtyPage;
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use speed::Speed;
use support::{Small, block};

/// What anything may take on a busy machine. The sleep that is to end lasts more than ten times as long.
const AT_ONCE: Duration = Duration::from_millis(500);

fn main() {
    const KVM: &[Need] = &[Need::Kvm];
    let mut trials = vec![
        trial(
            "the_ring_tells_each_page_in_order",
            KVM,
            the_ring_tells_each_page_in_order,
        ),
        trial("the_longest_sleep_ends_at_once", KVM, the_longest_sleep_ends_at_once),
        trial("limits_follow_their_vcpus", KVM, limits_follow_their_vcpus),
        trial(
            "auto_converge_slows_the_reader_as_much",
            KVM,
            auto_converge_slows_the_reader_as_much,
        ),
        trial(
            "bad_indices_and_none_are_refused",
            KVM,
            bad_indices_and_none_are_refused,
        ),
    ];
    trials.push(trial(
        "ring_sleep_holds_below_the_floor",
        KVM,
        ring_sleep::it_holds_below_the_floor,
    ));
    trials.extend(page_limiters::trials());
    trials.extend(bursts::trials());
    run(trials);
}

/// Only there so that what never happens fails a trial instead of hanging it: many times what anything takes on a slow host.
const PATIENCE: Duration = Duration::from_secs(3 * 60);

/// Waits until `done` holds; fails the test if it never does.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what} never happened");
        thread::sleep(Duration::from_millis(5));
    }
}

fn quota(mib_per_sec: f64) -> Quota {
    Quota::new(mib_per_sec).expect("a valid quota")
}

fn written(machine: &Machine, vcpu: usize) -> u64 {
    block(machine, vcpu).pages_written.load(Ordering::Acquire)
}

/// Keeps the pages of each vCPU in order.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<Vec<u64>>>>);

impl DirtySink for Pages {
    fn dirty(&self, vcpu: usize, page: DirtyPage) {
        let mut pages = self.0.lock().expect("no test thread panics with it");
        if pages.len() <= vcpu {
            pages.resize(vcpu + 1, Vec::new());
        }
        pages[vcpu].push(page.offset);
    }
}

/// Two sequential writers: what the rings say is what they do, page after page. A page may come twice in a row where its
/// entry was reset between its log and its write, so at most once a reap; without those, ring and guest agree to the page
/// in flight.
fn the_ring_tells_each_page_in_order() -> Result<(), Failed> {
    for ring in [1024, 4096, 65536] {
        let sink = Pages::default();
        let mut small = Small::new(ring, LimiterKind::None);
        small.programs = vec![Program::Sequential; 2];
        // More pages than the ring has entries: before a page is written again, its entry has been reset.
        small.pages_each = small.pages_each.max(u64::from(ring) * 5 / 4);
        let machine = small.build(Some(Box::new(sink.clone())));
        machine.plug(0);
        machine.plug(1);
        eventually("a second pass of both", || {
            (0..2).all(|vcpu| written(&machine, vcpu) > small.pages_each + 1)
        });
        machine.unplug(0);
        machine.unplug(1);
        machine.flush()?;
        // Each vCPU reaps both rings when its own is full, the reaper once a period, and `flush` did once.
        let full = machine.stats(0).ring_full_exits + machine.stats(1).ring_full_exits;
        let reaps = full + (machine.now().as_millis() / small.period.as_millis()) as u64 + 1;
        for vcpu in 0..2 {
            let pages = sink.0.lock().expect("no test thread panics with it")[vcpu].clone();
            let first = vcpu as u64 * small.pages_each;
            let mut repeats = 0;
            let mut next = first;
            for page in &pages {
                if *page == next {
                    next = first + (page + 1 - first) % small.pages_each;
                } else {
                    let last = first + (next + small.pages_each - 1 - first) % small.pages_each;
                    assert_eq!(
                        *page, last,
                        "ring {ring}, vCPU {vcpu}: a page is missing before this one"
                    );
                    repeats += 1;
                }
            }
            assert!(repeats <= reaps, "ring {ring}: {repeats} repeats in {reaps} reaps");
            assert_eq!(machine.harvested(vcpu).0, pages.len() as u64);
            let distinct = pages.len() as u64 - repeats;
            assert!(
                distinct.abs_diff(written(&machine, vcpu)) <= 1,
                "ring {ring}: {distinct} harvested, less repeats"
            );
        }
        machine.stop()?;
    }
    Ok(())
}

/// Brings a vCPU under a QEMU law into the longest sleep it can get: quota 1, so that it throttles up to the cap.
fn asleep(period: Duration) -> Machine {
    let mut small = Small::new(65536, LimiterKind::Qemu10);
    small.pages_each = 65536;
    small.period = period;
    let machine = small.build(None);
    machine.limit().set(Which::All, quota(1.0)).expect("vCPU 0 exists");
    machine.plug(0);
    eventually("a long sleep", || {
        machine.phase(0) == Phase::Asleep && machine.throttle(0) > Duration::from_secs(5)
    });
    machine
}

fn the_longest_sleep_ends_at_once() -> Result<(), Failed> {
    let took = |begin: Instant| {
        let took = begin.elapsed();
        assert!(took < AT_ONCE, "took {took:?}");
    };
    // Where a ring isn't full within a period, nobody sleeps.
    let period = (2 * Speed::measure()?.time_for(65536)).max(Duration::from_secs(2));
    let machine = asleep(period);
    let before = written(&machine, 0);
    let begin = Instant::now();
    machine.limit().cancel(Which::All)?;
    eventually("a write after the cancel", || written(&machine, 0) > before);
    took(begin);
    assert!(machine.limit().query().is_empty());
    machine.stop()?;

    let machine = asleep(period);
    let begin = Instant::now();
    machine.unplug(0);
    took(begin);
    let begin = Instant::now();
    machine.stop()?;
    took(begin);

    let machine = asleep(period);
    let begin = Instant::now();
    machine.stop()?;
    took(begin);
    Ok(())
}

fn limits_follow_their_vcpus() -> Result<(), Failed> {
    let mut small = Small::new(4096, LimiterKind::Budget);
    small.programs = vec![Program::Sequential; 2];
    let machine = small.build(None);
    // Accepted although vCPU 1 isn't plugged yet.
    let limit = Speed::measure()?.at_most(2.0);
    machine.limit().set(Which::One(1), limit)?;
    assert_eq!(
        machine.limit().query().iter().map(|info| info.vcpu).collect::<Vec<_>>(),
        [1]
    );
    machine.plug(0);
    machine.plug(1);
    let limited = |what: &str| {
        let before = [written(&machine, 0), written(&machine, 1)];
        eventually(what, || written(&machine, 0) > before[0] + 8192);
        let (free, held) = (written(&machine, 0) - before[0], written(&machine, 1) - before[1]);
        assert!(
            held * 4 < free,
            "{what}: vCPU 0 wrote {free} pages, vCPU 1 wrote {held} under a limit of {limit:?}"
        );
    };
    limited("progress beside a limited vCPU");
    let before = written(&machine, 1);
    eventually("progress of the limited vCPU", || written(&machine, 1) > before + 128);
    machine.unplug(1);
    assert_eq!(machine.phase(1), Phase::Parked);
    let parked = written(&machine, 1);
    limited("progress beside an unplugged vCPU");
    assert_eq!(written(&machine, 1), parked, "an unplugged vCPU runs");
    machine.plug(1);
    eventually("progress after plugging again", || written(&machine, 1) > parked);
    limited("progress beside the vCPU that is limited again");
    machine.limit().cancel(Which::One(1))?;
    let before = written(&machine, 1);
    eventually("a fast vCPU 1", || written(&machine, 1) > before + 8192);
    machine.stop()?;
    Ok(())
}

/// The flaw of throttling whoever is there: a vCPU that only reads sleeps as long as the one that writes.
fn auto_converge_slows_the_reader_as_much() -> Result<(), Failed> {
    let mut small = Small::new(4096, LimiterKind::AutoConverge);
    small.programs = vec![Program::Sequential, "reader".parse()?];
    small.period = Duration::from_millis(100);
    let machine = small.build(None);
    machine.limit().set(Which::One(0), quota(1.0))?;
    machine.plug(0);
    machine.plug(1);
    // 80 % of the time: 40 ms after each 10.
    eventually("a high share of sleep", || {
        machine.throttle(0) >= Duration::from_millis(40)
    });
    let asked = || [machine.stats(0).asked, machine.stats(1).asked];
    let before = asked();
    eventually("three seconds of sleep", || {
        asked()[0] > before[0] + Duration::from_secs(3)
    });
    let after = asked();
    let [writer, reader] = [0, 1].map(|vcpu| after[vcpu].saturating_sub(before[vcpu]));
    assert!(
        reader > writer / 2 && writer > reader / 2,
        "the writer slept {writer:?}, the reader {reader:?}"
    );
    machine.stop()?;
    Ok(())
}

fn bad_indices_and_none_are_refused() -> Result<(), Failed> {
    let machine = Small::new(1024, LimiterKind::Qemu72).build(None);
    let refused = LimitError::BadIndex { vcpu: 1, max: 1 };
    assert_eq!(machine.limit().set(Which::One(1), quota(5.0)), Err(refused));
    let limiter = LimiterKind::Qemu72;
    assert_eq!(
        machine.limit().set_vm(quota(5.0)),
        Err(LimitError::NoVmLimit { limiter })
    );
    machine.stop()?;
    let machine = Small::new(1024, LimiterKind::None).build(None);
    assert_eq!(machine.limit().set(Which::All, quota(5.0)), Err(LimitError::NoLimiter));
    // Commands from several threads at once, while the guest runs.
    machine.plug(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..500 {
                    machine.flush().expect("rings can be flushed at any time");
                }
            });
        }
    });
    // Flushed without a pause, a guest on a slow host gets nowhere: each flush orders it out before it has written. What
    // is asked is that it goes on afterwards.
    let flushed = machine.harvested(0).0;
    eventually("ten ring-full exits or as many pages", || {
        machine.harvested(0).0 > flushed + 10_000
    });
    machine.stop()?;
    Ok(())
}
