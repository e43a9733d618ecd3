//! The observer on a real guest: what it counts in the kernel is what the guest's own threads count.

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use dirtyrig_probes::{
    AttachKind, Error, Event, ExitReason, KvmEvent, Log, Options, Probes, Quota, Source, StallCause, Target,
    VcpuCounters, VcpuId,
    identity::{Evidence, KvmId},
    kvm_processes, monotonic_now, page_sources,
};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{AfterExit, Guest, Shape};

const HERE: &[Need] = &[Need::Kvm, Need::Bpf];

/// Names the copy of this test that is another VM's process.
const HOLD_A_VM: &str = "DIRTYRIG_TEST_HOLD_A_VM";

fn main() {
    if std::env::var_os(HOLD_A_VM).is_some() {
        hold_a_vm();
        return;
    }
    run(vec![
        trial("three_counts_of_pages_and_two_of_ring_full_exits_agree", HERE, || {
            three_counts(AttachKind::RawTracepoint)
        }),
        trial("they_agree_by_classic_tracepoints_too", HERE, || {
            three_counts(AttachKind::Tracepoint)
        }),
        trial("they_agree_while_no_program_runs_for_each_page", HERE, learnt),
        trial("every_page_is_traced_in_order", HERE, every_page_is_traced),
        trial("at_full_speed_no_record_is_lost", HERE, soak),
        trial("a_buffer_too_small_loses_and_counts", HERE, a_small_buffer_loses),
        trial("a_stall_spans_exit_to_run", HERE, a_stall_spans_exit_to_run),
        trial("every_vm_is_seen_when_all_are_asked_for", HERE, all_vms),
        trial("another_process_is_not_counted", HERE, filtered),
        trial("a_ring_at_a_reused_address_is_told_apart", HERE, reused_ring),
        trial(
            "and_while_no_program_runs_for_each_page",
            HERE,
            reused_ring_while_learnt,
        ),
        trial("a_vcpu_that_changes_its_thread_is_counted_once", HERE, replugged),
        trial(
            "a_vcpu_that_fills_no_ring_is_told_by_its_descriptor",
            HERE,
            told_by_descriptor,
        ),
        trial("a_vm_without_rings_is_seen_or_said_to_be_hidden", HERE, without_rings),
        trial("without_privilege_the_remedy_is_named", &[Need::Bpf], without_privilege),
        trial("what_never_fires_is_said", HERE, what_never_fires),
        trial("a_process_without_vm_is_refused", &[Need::Bpf], refused_targets),
        trial("a_buffer_size_out_of_range_is_refused", &[Need::Bpf], refused_sizes),
    ]);
}

const SHAPE: Shape = Shape {
    ring_entries: 1024,
    vcpus: 2,
    pages_per_vcpu: 2048,
};

fn nothing() -> AfterExit {
    Arc::new(|_, _| {})
}

fn own() -> Options {
    Options::new(Target::Pid(std::process::id()))
}

/// Runs a guest under `probes` until each vCPU wrote `pages`.
fn run_guest(shape: Shape, pages: u64, after_exit: &AfterExit) -> Guest {
    let mut guest = Guest::new(shape);
    guest.start(&Arc::new(AtomicBool::new(true)), after_exit);
    for vcpu in 0..shape.vcpus {
        guest.wait_for(vcpu, pages);
    }
    guest.stop();
    guest
}

/// The counters of the guest's vCPU `index`.
fn of<'a>(vcpus: &'a [VcpuCounters], guest: &Guest, index: usize) -> &'a VcpuCounters {
    vcpus
        .iter()
        .find(|vcpu| vcpu.thread == guest.thread(index))
        .expect("the probes saw the vCPU's thread")
}

fn three_counts(kind: AttachKind) -> Result<(), Failed> {
    let mut probes = Probes::attach(&Options {
        attach: vec![kind, AttachKind::Tracepoint],
        ..own()
    })?;
    let guest = run_guest(SHAPE, 20_000, &nothing());
    let vcpus = probes.vcpus()?;
    let (mut pushed, mut reset_seen, mut reset) = (0, 0, 0);
    for index in 0..SHAPE.vcpus {
        let (seen, counted) = (of(&vcpus, &guest, index), guest.counts(index));
        assert_eq!(
            seen.pushed_pages,
            counted.harvested.load(Ordering::Relaxed),
            "pages pushed and harvested"
        );
        assert_eq!(
            seen.ring_full_exits,
            counted.ring_full.load(Ordering::Relaxed),
            "ring-full exits"
        );
        assert_eq!(
            seen.userspace_exits,
            counted.runs.load(Ordering::Relaxed),
            "returns of KVM_RUN"
        );
        assert!(seen.ring_full_exits > 0, "the guest fills its ring");
        let (id, evidence) = (index as u32, Evidence::RingExit);
        assert_eq!(seen.vcpu.and_then(|vcpu| vcpu.kvm), Some(KvmId { id, evidence }));
        assert!(seen.gone, "its thread has ended");
        let in_flight = seen.pushed_pages.abs_diff(guest.written(index));
        // A page may be logged before it is written, once an exit, and is then logged again.
        assert!(
            in_flight <= counted.runs.load(Ordering::Relaxed),
            "{in_flight} pages differ from the guest's counter"
        );
        pushed += seen.pushed_pages;
        reset_seen += seen.reset_entries;
        reset += counted.reset.load(Ordering::Relaxed);
    }
    // The ioctl resets the rings of all vCPUs, whoever calls it; so only the sum compares.
    assert_eq!(pushed, reset, "pages pushed and entries reset, by the ioctl's return");
    assert_eq!(
        pushed, reset_seen,
        "pages pushed and entries reset, by kvm_dirty_ring_reset"
    );
    let status = probes.status()?;
    assert!(!status.lost.any(), "{status}");
    assert_eq!(
        status.event(KvmEvent::RingPush).map(|event| event.attached.clone()),
        Some(Ok(kind)),
        "{status}"
    );
    Ok(())
}

/// Drains until it is known which vCPU has which ring.
fn learn(probes: &mut Probes) -> Result<(), Failed> {
    let begin = Instant::now();
    loop {
        probes.drain(|_| {})?;
        if !probes.runs_for_each_page() {
            return Ok(());
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "the rings are learnt");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn learnt() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    assert!(probes.runs_for_each_page());
    let go = Arc::new(AtomicBool::new(true));
    let mut first = Guest::new(SHAPE);
    first.start(&go, &nothing());
    learn(&mut probes)?;
    // It is read while the vCPU runs, not only where it exits.
    let harvested = |guest: &Guest, vcpu| guest.counts(vcpu).harvested.load(Ordering::Relaxed);
    for _ in 0..50 {
        let least = harvested(&first, 0);
        let vcpus = probes.vcpus()?;
        let most = harvested(&first, 0) + SHAPE.ring_entries as u64;
        let pushed = of(&vcpus, &first, 0).pushed_pages;
        assert!((least..=most).contains(&pushed), "{pushed} pages of {least} to {most}");
    }
    // A VM that comes now has pushed pages before anything is attached again; they count as well.
    let mut second = Guest::new(SHAPE);
    second.start(&go, &nothing());
    second.wait_for(0, 20_000);
    learn(&mut probes)?;
    let status = probes.status()?;
    assert!(!status.lost.any(), "{status}");
    let (mut pushed, mut reset_seen, mut reset) = (0, 0, 0);
    for guest in [&mut first, &mut second] {
        guest.stop();
        let vcpus = probes.vcpus()?;
        for index in 0..SHAPE.vcpus {
            let seen = of(&vcpus, guest, index);
            assert_eq!(seen.pushed_pages, harvested(guest, index), "pages pushed and harvested");
            pushed += seen.pushed_pages;
            reset_seen += seen.reset_entries;
            reset += guest.counts(index).reset.load(Ordering::Relaxed);
        }
    }
    assert_eq!((pushed, pushed), (reset, reset_seen), "pages pushed and entries reset");
    // One that comes and goes before anybody looks is said to be missing.
    let third = run_guest(SHAPE, 5_000, &nothing());
    let missing = probes.lost()?;
    assert_eq!(missing.vcpus, SHAPE.vcpus as u64, "{missing:?}");
    let told = probes.status()?.to_string();
    assert!(told.contains("lost the pages of 2 vCPUs"), "{told}");
    // All are gone: nothing is known of the next.
    drop((first, second, third));
    std::thread::sleep(Duration::from_millis(1_100));
    probes.drain(|_| {})?;
    assert!(probes.runs_for_each_page());
    Ok(())
}

fn every_page_is_traced() -> Result<(), Failed> {
    let shape = Shape { vcpus: 1, ..SHAPE };
    let mut probes = Probes::attach(&own().tracing())?;
    let begin = monotonic_now();
    let guest = run_guest(shape, 3 * shape.pages_per_vcpu as u64, &nothing());
    let mut pages = Vec::new();
    probes.drain(|event| {
        if let Event::Push(push) = event {
            pages.push(push);
        }
    })?;
    let harvested = guest.counts(0).harvested.load(Ordering::Relaxed);
    assert_eq!(pages.len() as u64, harvested, "a record for each page");
    assert!(
        pages.windows(2).all(|two| two[0].at <= two[1].at),
        "in the order of time"
    );
    assert!(
        pages.iter().all(|push| push.at >= begin && push.at <= monotonic_now()),
        "on the clock of this process"
    );
    assert!(
        pages.iter().all(|push| push.slot == 1 && push.address_space == 0),
        "of the logged slot"
    );
    // The guest goes through its region page by page; an exit may have a page logged twice.
    let steps = pages.windows(2).filter(|two| {
        let next = (two[0].offset + 1) % shape.pages_per_vcpu as u64;
        two[1].offset != next && two[1].offset != two[0].offset
    });
    assert_eq!(steps.count(), 0, "pages out of order");
    assert_eq!(
        pages.iter().map(|push| push.offset).collect::<HashSet<_>>().len(),
        shape.pages_per_vcpu
    );
    assert!(!probes.lost()?.any());
    Ok(())
}

/// Every page traced, unlimited, for a second or as many as `DIRTYRIG_SOAK_S` says.
fn soak() -> Result<(), Failed> {
    let seconds = std::env::var("DIRTYRIG_SOAK_S").map_or(Ok(1), |text| text.parse())?;
    let shape = Shape {
        ring_entries: 4096,
        vcpus: 1,
        pages_per_vcpu: 32_768,
    };
    let mut probes = Probes::attach(&own().tracing())?;
    let mut guest = Guest::new(shape);
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing());
    let (mut pages, mut stalls) = (0_u64, 0_u64);
    let mut drain = |probes: &mut Probes| {
        probes.drain(|event| match event {
            Event::Push(_) => pages += 1,
            Event::Stall(_) => stalls += 1,
            other => unreachable!("nothing else is watched: {other:?}"),
        })
    };
    let end = monotonic_now() + Duration::from_secs(seconds);
    while monotonic_now() < end {
        std::thread::sleep(Duration::from_millis(50));
        drain(&mut probes)?;
    }
    guest.stop();
    drain(&mut probes)?;
    let (vcpus, lost) = (probes.vcpus()?, probes.lost()?);
    let seen = of(&vcpus, &guest, 0);
    println!("{seconds} s: {pages} pages and {stalls} stalls recorded, {lost:?}");
    assert!(!lost.any(), "{lost:?}");
    assert_eq!(pages, seen.pushed_pages, "a record for each page that was counted");
    assert_eq!(
        pages,
        guest.counts(0).harvested.load(Ordering::Relaxed),
        "and harvested"
    );
    assert_eq!(pages, guest.counts(0).reset.load(Ordering::Relaxed), "and reset");
    assert_eq!(
        stalls,
        seen.ring_full.count + seen.interrupted.count,
        "a record for each stall"
    );
    Ok(())
}

fn a_small_buffer_loses() -> Result<(), Failed> {
    let options = Options {
        trace_pushes: true,
        ring_bytes: 4096,
        ..own()
    };
    let mut probes = Probes::attach(&options)?;
    let guest = run_guest(SHAPE, 5_000, &nothing());
    let (mut stalls, mut pages) = (0, 0);
    probes.drain(|event| match event {
        Event::Stall(_) => stalls += 1,
        Event::Push(_) => pages += 1,
        other => unreachable!("nothing else is watched: {other:?}"),
    })?;
    let vcpus = probes.vcpus()?;
    let pushed: u64 = vcpus.iter().map(|vcpu| vcpu.pushed_pages).sum();
    let lost = probes.lost()?;
    assert!(lost.pushes > 0, "the buffer holds about a hundred of thousands");
    assert_eq!(
        pages + lost.pushes,
        pushed,
        "a page is either recorded or counted as lost"
    );
    let harvested: u64 = (0..2)
        .map(|vcpu| guest.counts(vcpu).harvested.load(Ordering::Relaxed))
        .sum();
    assert_eq!(pushed, harvested, "counting goes on without buffer");
    let stalled: u64 = vcpus
        .iter()
        .map(|vcpu| vcpu.ring_full.count + vcpu.interrupted.count)
        .sum();
    assert_eq!(
        stalls + lost.stalls,
        stalled,
        "a stall is either recorded or counted as lost"
    );
    let told = probes.status()?.to_string();
    assert!(told.contains(&format!("lost {} push records", lost.pushes)), "{told}");
    Ok(())
}

fn a_stall_spans_exit_to_run() -> Result<(), Failed> {
    const ASKED: Duration = Duration::from_millis(3);
    let mut probes = Probes::attach(&own())?;
    let guest = run_guest(SHAPE, 5_000, &(Arc::new(|_, _| std::thread::sleep(ASKED)) as AfterExit));
    let mut stalls = Vec::new();
    probes.drain(|event| {
        if let Event::Stall(stall) = event {
            stalls.push(stall);
        }
    })?;
    for index in 0..SHAPE.vcpus {
        let vcpus = probes.vcpus()?;
        let seen = of(&vcpus, &guest, index);
        let full = |cause| {
            stalls
                .iter()
                .filter(move |stall| stall.thread == seen.thread && stall.cause == cause)
        };
        // The last exit may have had no next run.
        let exits = guest.counts(index).ring_full.load(Ordering::Relaxed);
        assert!(full(StallCause::RingFull).count() as u64 >= exits - 1);
        assert_eq!(full(StallCause::RingFull).count() as u64, seen.ring_full.count);
        assert_eq!(
            seen.ring_full.lengths.count(),
            seen.ring_full.count,
            "every stall is in the histogram"
        );
        let total: Duration = full(StallCause::RingFull).map(dirtyrig_probes::Stall::length).sum();
        assert_eq!(total, seen.ring_full.total);
        assert!(
            full(StallCause::RingFull).all(|stall| stall.length() >= ASKED),
            "the sleep is part of it"
        );
        assert!(full(StallCause::RingFull).all(|stall| stall.overhead(ASKED) + ASKED == stall.length()));
        let median = seen.ring_full.lengths.quantile(0.5).expect("there were stalls");
        assert!(median >= ASKED.mul_f64(0.875), "median {median:?}");
        assert!(
            full(StallCause::RingFull)
                .skip(1)
                .all(|stall| stall.vcpu.and_then(VcpuId::kvm_id) == Some(index as u32))
        );
        assert!(seen.in_run > Duration::ZERO);
    }
    Ok(())
}

fn all_vms() -> Result<(), Failed> {
    let mut probes = Probes::attach(&Options::new(Target::AllKvm))?;
    let mut guest = Guest::new(SHAPE);
    assert!(kvm_processes().iter().any(|(pid, _)| *pid == std::process::id()));
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing());
    guest.wait_for(0, 5_000);
    guest.stop();
    let vcpus = probes.vcpus()?;
    assert_eq!(
        of(&vcpus, &guest, 0).pushed_pages,
        guest.counts(0).harvested.load(Ordering::Relaxed)
    );
    assert!(probes.target_lives());
    Ok(())
}

fn filtered() -> Result<(), Failed> {
    let mut other = vm_in_another_process()?;
    let mut probes = Probes::attach(&Options::new(Target::Pid(other.id())))?;
    run_guest(SHAPE, 5_000, &nothing());
    assert_eq!(probes.vcpus()?, []);
    let told = probes.status()?.to_string();
    assert!(told.contains("no event has fired yet"), "{told}");
    assert!(probes.target_lives());
    other.kill()?;
    other.wait()?;
    assert!(!probes.target_lives(), "a process that ended is noticed");
    Ok(())
}

fn reused_ring() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    let counted = guests_in_this_thread();
    told_apart(&mut probes, counted)
}

fn reused_ring_while_learnt() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    let guests = std::thread::spawn(guests_in_this_thread);
    let mut rested = 0;
    while !guests.is_finished() {
        probes.drain(|_| {})?;
        rested += u32::from(!probes.runs_for_each_page());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(rested > 0, "it ran for each page all the time");
    told_apart(&mut probes, guests.join().unwrap())
}

/// One after the other in one thread: the kernel gives the next vCPU the memory of the one before. The pages that they
/// harvested, and the entries that they reset.
fn guests_in_this_thread() -> (u64, u64) {
    let shape = Shape { vcpus: 1, ..SHAPE };
    let (mut harvested, mut reset) = (0, 0);
    for pages in [3_000, 200_000, 1_500, 150_000, 7_000] {
        let mut guest = Guest::new(shape);
        guest.run_here(pages);
        harvested += guest.counts(0).harvested.load(Ordering::Relaxed);
        reset += guest.counts(0).reset.load(Ordering::Relaxed);
    }
    (harvested, reset)
}

/// What a VMM does with a vCPU that is plugged out and in again: it keeps it, and runs it on another thread.
fn replugged() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    let mut guest = Guest::new(Shape { vcpus: 1, ..SHAPE });
    for pages in [100_000, 200_000, 260_000, 400_000] {
        std::thread::scope(|scope| {
            let vcpu = scope.spawn(|| guest.run_here(pages));
            while !vcpu.is_finished() {
                probes.drain(|_| {}).expect("the maps are there");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    let vcpus = probes.vcpus()?;
    assert_eq!(vcpus.len(), 4, "four threads");
    let sum = |of: fn(&VcpuCounters) -> u64| vcpus.iter().map(of).sum::<u64>();
    assert_eq!(
        (sum(|vcpu| vcpu.pushed_pages), sum(|vcpu| vcpu.reset_entries)),
        (
            guest.counts(0).harvested.load(Ordering::Relaxed),
            guest.counts(0).reset.load(Ordering::Relaxed)
        )
    );
    assert!(!probes.lost()?.any());
    Ok(())
}

fn told_apart(probes: &mut Probes, (harvested, reset): (u64, u64)) -> Result<(), Failed> {
    let vcpus = probes.vcpus()?;
    assert_eq!(vcpus.len(), 1, "one thread");
    assert_eq!((vcpus[0].pushed_pages, vcpus[0].reset_entries), (harvested, reset));
    Ok(())
}

fn told_by_descriptor() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    let mut guest = Guest::new(Shape {
        ring_entries: 65_536,
        ..SHAPE
    });
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing());
    for index in 0..SHAPE.vcpus {
        guest.wait_for(index, 1);
        // Out of KVM_RUN and in again.
        let before = guest.counts(index).interrupted.load(Ordering::Relaxed);
        guest.kick(index);
        while guest.counts(index).interrupted.load(Ordering::Relaxed) == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        guest.wait_for(index, 1_000);
    }
    let vcpus = probes.vcpus()?;
    for index in 0..SHAPE.vcpus {
        let vcpu = of(&vcpus, &guest, index);
        assert_eq!(vcpu.ring_full_exits, 0);
        let found = vcpu.vcpu.and_then(|vcpu| vcpu.kvm).expect("the descriptor is open");
        // Where kvm_exit fires, it names the vCPU as well.
        assert!(
            matches!(found.evidence, Evidence::Descriptor | Evidence::Exit),
            "{found:?}"
        );
        assert_eq!(found.id, index as u32);
        assert!(!vcpu.gone);
        assert_eq!(vcpu.interrupted.count, 1, "the kick was a stall of its own cause");
    }
    Ok(())
}

fn without_rings() -> Result<(), Failed> {
    let shape = Shape {
        ring_entries: 0,
        vcpus: 1,
        ..SHAPE
    };
    let mut guest = Guest::new(shape);
    guest.start(&Arc::new(AtomicBool::new(true)), &nothing());
    guest.wait_for(0, 1);
    let mut probes = Probes::attach(&own())?;
    probes.drain(|_| {})?;
    let bitmap = |status: &&dirtyrig_probes::SourceStatus| status.source != Source::Ring;
    let sources = page_sources()?;
    let refusals: Option<Vec<&String>> = sources
        .iter()
        .filter(bitmap)
        .map(|status| status.works.as_ref().err())
        .collect();
    if let Some(refusals) = refusals {
        // None of the ways works, and each says why.
        guest.wait_for(0, 1000);
        let told = probes.status()?.to_string();
        assert!(
            told.contains("a VM has no dirty ring") && told.contains("dirty-ring-size"),
            "{told}"
        );
        assert!(
            refusals.iter().all(|why| told.contains(why.as_str())),
            "{refusals:?}: {told}"
        );
        let refused = Quota::attach_to(Log::Bitmap, 1).map(drop);
        assert!(matches!(refused, Err(Error::NoBitmap { .. })), "{refused:?}");
    } else {
        assert!(probes.runs_for_each_page());
        guest.sync(0);
        guest.wait_for(0, 1000);
        assert!(of(&probes.vcpus()?, &guest, 0).pushed_pages > 0);
    }
    Ok(())
}

// As every trial returns.
#[allow(clippy::unnecessary_wraps)]
fn without_privilege() -> Result<(), Failed> {
    // Capabilities are a thread's own: this one gives its up.
    let refused = std::thread::spawn(|| {
        drop_capabilities();
        Probes::attach(&own()).map(drop)
    });
    let refused = refused.join().unwrap();
    assert!(matches!(refused, Err(Error::Privilege { .. })), "{refused:?}");
    Ok(())
}

fn drop_capabilities() {
    // struct __user_cap_header_struct, version 3, this thread; and two empty struct __user_cap_data_struct.
    let (header, nothing) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: both are as large as the call of this version reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, &nothing) };
    assert_eq!(result, 0, "giving up is always allowed");
}

fn what_never_fires() -> Result<(), Failed> {
    let mut probes = Probes::attach(&own())?;
    let guest = run_guest(SHAPE, 5_000, &nothing());
    let (vcpus, status) = (probes.vcpus()?, probes.status()?);
    for (event, name) in [(KvmEvent::Exit, "kvm_exit"), (KvmEvent::Entry, "kvm_entry")] {
        let fired = status.event(event).expect("every event has its status").fired;
        let said = status
            .to_string()
            .contains(&format!("{name} never fired although KVM_RUN returned"));
        assert_eq!(said, fired == 0, "{status}");
    }
    let hardware = vcpus[0].exit_reasons.iter().any(|exit| exit.reason.is_hardware());
    assert_eq!(
        hardware,
        status.event(KvmEvent::Exit).is_some_and(|exit| exit.fired > 0)
    );
    let full = vcpus[0]
        .exit_reasons
        .iter()
        .find(|exit| exit.reason == ExitReason::Userspace(31));
    let full = full.expect("the ring was full");
    assert_eq!(full.name, "KVM_EXIT_DIRTY_RING_FULL");
    assert_eq!(full.count, of(&vcpus, &guest, 0).ring_full_exits);

    // Without the two, nothing is said of them.
    let probes = Probes::attach(&Options {
        hardware_exits: false,
        ..own()
    })?;
    assert_eq!(probes.status()?.event(KvmEvent::Exit), None);
    Ok(())
}

fn refused_targets() -> Result<(), Failed> {
    let mut idle = std::process::Command::new("sleep").arg("60").spawn()?;
    let refused = Probes::attach(&Options::new(Target::Pid(idle.id())));
    assert!(matches!(&refused, Err(Error::NoVm { pid, name }) if *pid == idle.id() && name == "sleep"));
    idle.kill()?;
    idle.wait()?;
    let refused = Probes::attach(&Options::new(Target::Pid(idle.id())));
    assert!(matches!(&refused, Err(Error::NoSuchProcess { pid }) if *pid == idle.id()));

    let (tell, told) = std::sync::mpsc::channel();
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw() as u32).unwrap();
        finished.recv().unwrap();
    });
    let tid = told.recv()?;
    let refused = Probes::attach(&Options::new(Target::Pid(tid)));
    assert!(matches!(refused, Err(Error::IsAThread { pid, leader }) if pid == tid && leader == std::process::id()));
    done.send(())?;
    thread.join().unwrap();
    Ok(())
}

// As every trial returns.
#[allow(clippy::unnecessary_wraps)]
fn refused_sizes() -> Result<(), Failed> {
    for ring_bytes in [0, 100, 2048, 12_288, 1 << 31] {
        let refused = Probes::attach(&Options { ring_bytes, ..own() });
        assert!(
            matches!(refused, Err(Error::RingBytes { bytes, .. }) if bytes == ring_bytes),
            "{ring_bytes}"
        );
    }
    Ok(())
}

/// Starts a process that has a VM, and returns once it does.
fn vm_in_another_process() -> Result<std::process::Child, Failed> {
    use std::io::BufRead as _;
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .env(HOLD_A_VM, "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    std::io::BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut ready)?;
    assert_eq!(ready, "ready\n");
    Ok(child)
}

fn hold_a_vm() {
    let _guest = Guest::new(SHAPE);
    println!("ready");
    // Until the parent ends it, or itself.
    let _ = std::io::stdin().read_line(&mut String::new());
}
