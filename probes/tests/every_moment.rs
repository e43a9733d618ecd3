//! The pages of every vCPU at every moment: what the probes count in an interval is what the guest itself counts in it, wherever
//! in `KVM_RUN` its vCPUs are, and whoever resets their rings.

mod support;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use dirtyrig_probes::{Options, Probes, Target, VcpuCounters, identity::Evidence};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{AfterExit, Guest, Shape};

const HERE: &[Need] = &[Need::Kvm, Need::Bpf];

fn main() {
    run(vec![
        trial("every_interval_is_right_with_ring_1024", HERE, || of_ring(1024)),
        trial("every_interval_is_right_with_ring_4096", HERE, || of_ring(4096)),
        trial("every_interval_is_right_with_ring_65536", HERE, || of_ring(65_536)),
        trial("a_guest_that_never_exits_is_seen", HERE, never_exits),
    ]);
}

const INTERVAL: Duration = Duration::from_millis(200);
const INTERVALS: u32 = 2;
/// A host that is busy may take long between the guest's counter and the probes' reading: such a reading is taken again.
const TRIES: u32 = 100;

/// What a vCPU had dirtied: by its own counter before and after the probes were read, and by the probes.
struct Reading {
    least: u64,
    most: u64,
    seen: VcpuCounters,
}

fn of_ring(ring_entries: usize) -> Result<(), Failed> {
    for vcpus in [1, 2, 8] {
        let shape = shape(ring_entries, vcpus);
        let guest = reaped(shape);
        // Its vCPUs are in the middle of KVM_RUN.
        let mut probes = attached(&guest, vcpus)?;
        let mut then = readings(&mut probes, &guest, vcpus)?;
        for _ in 0..INTERVALS {
            std::thread::sleep(INTERVAL);
            let now = readings(&mut probes, &guest, vcpus)?;
            for (vcpu, (then, now)) in then.iter().zip(&now).enumerate() {
                agree(then, now, &format!("ring {ring_entries}, vCPU {vcpu} of {vcpus}"));
            }
            then = now;
        }
        assert!(!probes.lost()?.any(), "{:?}", probes.lost()?);
    }
    Ok(())
}

/// Each write meets a page that was reset: a region is larger than a ring.
fn shape(ring_entries: usize, vcpus: usize) -> Shape {
    Shape {
        ring_entries,
        vcpus,
        pages_per_vcpu: ring_entries + 512,
    }
}

/// A guest at full speed whose rings another thread resets.
fn reaped(shape: Shape) -> Guest {
    let mut guest = Guest::new(shape);
    let nothing: AfterExit = Arc::new(|_, _| {});
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing);
    guest.reap();
    for vcpu in 0..shape.vcpus {
        guest.wait_for(vcpu, 100);
    }
    guest
}

/// Probes that have seen every vCPU.
fn attached(guest: &Guest, vcpus: usize) -> Result<Probes, Failed> {
    let mut probes = Probes::attach(&Options::new(Target::Pid(std::process::id())))?;
    let begin = Instant::now();
    loop {
        probes.drain(|_| {})?;
        let seen = probes.vcpus()?;
        let is_seen = |vcpu| {
            seen.iter()
                .any(|seen| seen.thread == guest.thread(vcpu) && seen.pushed_pages > 0)
        };
        if (0..vcpus).all(is_seen) {
            return Ok(probes);
        }
        assert!(begin.elapsed() < Duration::from_mins(1), "every vCPU is seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn readings(probes: &mut Probes, guest: &Guest, vcpus: usize) -> Result<Vec<Reading>, Failed> {
    let written = || (0..vcpus).map(|vcpu| guest.written(vcpu)).collect::<Vec<_>>();
    let mut best: Option<(u64, Vec<Reading>)> = None;
    for _ in 0..TRIES {
        probes.drain(|_| {})?;
        let least = written();
        let mut seen = probes.vcpus()?;
        let most = written();
        let readings = (0..vcpus).map(|vcpu| {
            let index = seen.iter().position(|seen| seen.thread == guest.thread(vcpu));
            Reading {
                least: least[vcpu],
                most: most[vcpu],
                seen: seen.swap_remove(index.expect("it was seen before")),
            }
        });
        let readings: Vec<_> = readings.collect();
        let widest = readings.iter().map(|reading| reading.most - reading.least).max();
        let widest = widest.unwrap_or_default();
        if best.as_ref().is_none_or(|(best, _)| widest < *best) {
            best = Some((widest, readings));
        }
        if widest <= 32 {
            break;
        }
    }
    Ok(best.expect("at least one was taken").1)
}

/// Within 2 % or 64 pages of what the guest counts.
fn agree(then: &Reading, now: &Reading, whose: &str) {
    let (least, most) = (now.least.saturating_sub(then.most), now.most - then.least);
    let apart = |pages: u64| (pages / 50).max(64);
    let pages = now.seen.pushed_pages - then.seen.pushed_pages;
    assert!(
        (least.saturating_sub(apart(least))..=most + apart(most)).contains(&pages),
        "{whose}: {pages} pages in an interval in which the guest counted {least} to {most}"
    );
    let gain = |of: fn(&VcpuCounters) -> Duration| of(&now.seen).checked_sub(of(&then.seen)).expect("it only grows");
    let (span, in_run) = (gain(|seen| seen.at), gain(|seen| seen.in_run));
    assert!(in_run <= span, "{whose}: {in_run:?} of {span:?} in KVM_RUN");
    if now.seen.userspace_exits == then.seen.userspace_exits && now.seen.runs == then.seen.runs && most > 0 {
        assert_eq!(in_run, span, "{whose}: it never left KVM_RUN");
    }
}

fn never_exits() -> Result<(), Failed> {
    let guest = reaped(shape(65_536, 1));
    let mut probes = attached(&guest, 1)?;
    let begin = Instant::now();
    // A reaper that is late makes it exit: then it is met in the middle of KVM_RUN another time.
    loop {
        let then = readings(&mut probes, &guest, 1)?;
        std::thread::sleep(INTERVAL);
        let now = readings(&mut probes, &guest, 1)?;
        agree(&then[0], &now[0], "the guest");
        let seen = &now[0].seen;
        if seen.userspace_exits == 0 && seen.runs == 0 {
            let vcpu = seen.vcpu.expect("the descriptor is open");
            // Where kvm_exit fires, it names the vCPU as well.
            let is_kernel = vcpu
                .kvm
                .is_some_and(|kvm| matches!(kvm.evidence, Evidence::Descriptor | Evidence::Exit | Evidence::Debugfs));
            assert!(is_kernel && vcpu.kvm_id() == Some(0), "{vcpu:?}");
            assert!(!probes.runs_for_each_page(), "its ring is known");
            return Ok(());
        }
        assert!(
            begin.elapsed() < Duration::from_mins(1),
            "it exits all the time: {seen:?}"
        );
        probes = attached(&guest, 1)?;
    }
}
