//! The machine on real KVM: nothing dirtied is lost, every command takes effect at once.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{
    control::Phase,
    kvm::ring::DirtyPage,
    law::LimiterKind,
    limit::{LimitError, Which},
    machine::Machine,
    rings::DirtySink,
    units::Quota,
};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{Small, block};

/// What anything may take on a busy machine. The sleep that is to end lasts more than ten times as long.
const AT_ONCE: Duration = Duration::from_millis(500);

fn main() {
    const KVM: &[Need] = &[Need::Kvm];
    const BPF: &[Need] = &[Need::Kvm, Need::Bpf];
    let mut trials = vec![
        trial(
            "the_ring_tells_each_page_in_order",
            KVM,
            the_ring_tells_each_page_in_order,
        ),
        trial("the_longest_sleep_ends_at_once", KVM, the_longest_sleep_ends_at_once),
        trial("limits_follow_their_vcpus", KVM, limits_follow_their_vcpus),
        trial(
            "bad_indices_and_none_are_refused",
            KVM,
            bad_indices_and_none_are_refused,
        ),
    ];
    // The limiters that charge a vCPU by the page.
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
    }
    run(trials);
}

/// Waits until `done` holds; fails the test if it never does.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_mins(1), "{what} never happened");
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

fn held_back_entries_make_ring_and_guest_agree(kind: LimiterKind) -> Result<(), Failed> {
    // From a page or two an exit to hundreds.
    for mib_per_sec in [1.0, 20.0, 200.0] {
        let machine = Small::new(4096, kind).build(None);
        machine.limit().set(Which::All, quota(mib_per_sec))?;
        machine.plug(0);
        eventually("many pauses", || machine.stats(0).slept > Duration::from_millis(300));
        machine.unplug(0);
        machine.flush()?;
        let (harvested, written) = (machine.harvested(0).0, written(&machine, 0));
        assert!(
            harvested.abs_diff(written) <= 1,
            "{mib_per_sec} MiB/s: harvested {harvested}, written {written}"
        );
        machine.stop()?;
    }
    Ok(())
}

/// A vCPU has dirtied more, unlimited, than its quota allows in minutes: none of it is charged, whether the limit is the
/// first one, comes again after a cancel, or is one of the whole machine.
fn a_set_acts_at_once(kind: LimiterKind) -> Result<(), Failed> {
    /// Pages that wait in the ring when the limit comes: four minutes' worth.
    const UNHARVESTED: u64 = 60_000;
    /// What may be dirtied between the command and the exit that it causes: ten milliseconds of a fast guest, in which
    /// the kick and the first slice have long ended.
    const OVERRUN: Duration = Duration::from_secs(4096 / 256);

    let mut small = Small::new(65536, kind);
    small.pages_each = 2 * 65536;
    // The reaper stays out of it.
    small.period = Duration::from_mins(1);
    let machine = small.build(None);
    machine.plug(0);
    for round in 0..3 {
        eventually("an almost full ring", || {
            written(&machine, 0) - machine.harvested(0).0 >= UNHARVESTED
        });
        let of_machine = round == 1 && kind.limits_whole_vm();
        let slept = machine.stats(0).slept;
        if of_machine {
            machine.limit().set_vm(quota(1.0))?;
        } else {
            machine.limit().set(Which::All, quota(1.0))?;
        }
        eventually("a throttled vCPU", || machine.stats(0).slept > slept);
        let asked = machine.stats(0).last_asked;
        assert!(asked < OVERRUN, "round {round}: asked to sleep {asked:?}");
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

/// Brings a vCPU under a QEMU law into the longest sleep it can get: quota 1, so that it throttles up to the cap.
fn asleep() -> Machine {
    let mut small = Small::new(65536, LimiterKind::Qemu10);
    small.pages_each = 65536;
    small.period = Duration::from_secs(2);
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
    let machine = asleep();
    let before = written(&machine, 0);
    let begin = Instant::now();
    machine.limit().cancel(Which::All)?;
    eventually("a write after the cancel", || written(&machine, 0) > before);
    took(begin);
    assert!(machine.limit().query().is_empty());
    machine.stop()?;

    let machine = asleep();
    let begin = Instant::now();
    machine.unplug(0);
    took(begin);
    let begin = Instant::now();
    machine.stop()?;
    took(begin);

    let machine = asleep();
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
    machine.limit().set(Which::One(1), quota(2.0))?;
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
            "{what}: vCPU 0 wrote {free} pages, vCPU 1 wrote {held} under a limit of 2 MiB/s"
        );
    };
    limited("progress beside a limited vCPU");
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
    let machine = Arc::new(machine);
    machine.plug(0);
    let stop = Arc::new(AtomicBool::new(false));
    let flusher = {
        let (machine, stop) = (Arc::clone(&machine), Arc::clone(&stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                machine.flush().expect("rings can be flushed at any time");
            }
        })
    };
    eventually("ten ring-full exits or as many pages", || {
        machine.harvested(0).0 > 10_000
    });
    stop.store(true, Ordering::Relaxed);
    flusher.join().expect("no flush failed");
    Arc::into_inner(machine).expect("the flusher has ended").stop()?;
    Ok(())
}
