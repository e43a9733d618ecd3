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
            "resets_come_once_in_ten_milliseconds",
            KVM,
            resets_come_once_in_ten_milliseconds,
        ),
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
    for (kind, needs) in [(LimiterKind::Budget, KVM), (LimiterKind::BudgetEbpf, BPF)] {
        trials.push(trial(&format!("{kind}_lets_a_guest_wait"), needs, move || {
            a_guest_that_waits_gets_its_quota(kind)
        }));
        trials.push(trial(&format!("{kind}_lets_a_guest_run"), needs, move || {
            a_quota_out_of_reach_is_none(kind)
        }));
    }
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
        if kind.limits_whole_vm() {
            trials.push(trial(&format!("{kind}_shares_one_quota"), needs, move || {
                one_quota_is_shared(kind)
            }));
        }
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
    machine.limit().set(Which::All, quota(25.0))?;
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

/// A guest that dirties some pages and waits, over and over, is held to little less than it would dirty: it gets its quota,
/// because no wait takes longer than its bucket takes to fill. Charged when its grant is spent and not before, it gets four
/// fifths.
fn a_guest_that_waits_gets_its_quota(kind: LimiterKind) -> Result<(), Failed> {
    const WINDOW: Duration = Duration::from_secs(1);
    let mut small = Small::new(65536, kind);
    small.programs = vec![Program::Burst {
        pages: 170,
        pause: Duration::from_millis(6),
    }];
    let machine = small.build(None);
    machine.plug(0);
    let rate = || {
        let (begin, before) = (Instant::now(), written(&machine, 0));
        thread::sleep(WINDOW);
        (written(&machine, 0) - before) as f64 / 256.0 / begin.elapsed().as_secs_f64()
    };
    // The machine may be busy in any of the windows, though not in all: the first has the first writes of all pages.
    let unlimited = (0..3).map(|_| rate()).fold(0.0, f64::max);
    let asked = 0.97 * unlimited;
    machine.limit().set(Which::All, quota(asked))?;
    let held = (0..5).map(|_| rate()).fold(0.0, f64::max);
    assert!(held <= 1.03 * asked, "{held} MiB/s of {asked}");
    assert!(held >= 0.93 * asked, "{held} MiB/s of {asked}");
    machine.stop()?;
    Ok(())
}

/// A grant that is never spent, on a ring that is full a thousand times: the vCPU runs on.
fn a_quota_out_of_reach_is_none(kind: LimiterKind) -> Result<(), Failed> {
    let machine = Small::new(1024, kind).build(None);
    machine.limit().set(Which::All, quota(1e6))?;
    machine.plug(0);
    eventually("many full rings", || machine.stats(0).ring_full_exits > 1000);
    assert_eq!(machine.stats(0).slept, Duration::ZERO);
    machine.stop()?;
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
    /// MiB/s, and pages a second.
    const QUOTA: f64 = 20.0;
    const INCOME: f64 = QUOTA * 256.0;
    /// Twice what comes in during the longest stall, and what may be dirtied before a deadline's exit: 10 ms of a fast
    /// guest.
    const BURST: f64 = INCOME * 0.010 + 4096.0;

    let mut small = Small::new(4096, kind);
    small.programs = vec![Program::Sequential; 2];
    let machine = small.build(None);
    machine.limit().set_vm(quota(QUOTA))?;
    assert_eq!(machine.limit().vm_quota(), Some(quota(QUOTA)));
    machine.plug(0);
    machine.plug(1);
    both(&machine, "a first round", 2048);

    let within = |what: &str, pages: [u64; 2], span: Duration| {
        let (sum, allowed) = (pages[0] + pages[1], INCOME * span.as_secs_f64() + BURST);
        assert!(
            (sum as f64) < allowed,
            "{what}: {sum} pages of {allowed:.0} in {span:?}"
        );
    };
    let (pages, span) = both(&machine, "both", 20_480);
    within("both", pages, span);
    assert!(pages[0].abs_diff(pages[1]) < 4096, "unfair: {pages:?}");

    machine.unplug(1);
    both(&machine, "a free share", 512);
    let (pages, span) = both(&machine, "one alone", 20_480);
    within("one alone", pages, span);
    assert_eq!(pages[1], 0, "an unplugged vCPU runs");

    // A quarter for vCPU 1, whatever the machine has left: three quarters for vCPU 0.
    machine.plug(1);
    machine.limit().set(Which::One(1), quota(QUOTA / 4.0))?;
    both(&machine, "mixed limits", 2048);
    let (pages, span) = both(&machine, "mixed", 20_480);
    within("mixed", pages, span);
    assert!(
        pages[1] * 2 < pages[0],
        "vCPU 1 has a quarter, by its own limit: {pages:?}"
    );
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
