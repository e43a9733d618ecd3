//! A running QEMU, limited from outside: its guest's own counter says whether it is.

mod command;
mod identity;
mod libvirt;
mod libvirt_monitor;
mod shaped;
mod unit;
mod vm;

use std::{
    thread,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    law::depth::Depth,
    limit::Which,
    units::{PAGES_PER_MIB, Quota},
};
use dirtyrig_rig::outside::{Limiter, OutsideError};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use serde_json::json;
use vm::Qemu;

/// No deeper than its pauses need, so that what a busy host kept a vCPU from is not made up in a window.
const DEPTH: Depth = Depth {
    max_stall: Duration::from_millis(5),
    burst: Duration::from_millis(10),
};
/// Or less, on a slow host: see [`Qemu::at_most`].
const QUOTA_MIB_S: f64 = 25.0;
const WINDOW: Duration = Duration::from_secs(1);

fn main() {
    const HERE: &[Need] = &[Need::Kvm, Need::Bpf, Need::Qemu];
    run(vec![
        trial("each_vcpu_keeps_to_its_quota", HERE, || keeps(4096, 1)),
        trial("on_a_large_ring_and_two_vcpus_too", HERE, || keeps(65536, 2)),
        trial("the_vm_as_a_whole_keeps_to_one_quota", HERE, vm_keeps),
        trial("a_guest_that_waits_gets_its_quota", HERE, waits),
        trial("attached_and_detached_it_stays_healthy", HERE, again_and_again),
        trial("a_killed_vm_ends_it", HERE, a_killed_vm_ends_it),
        trial("what_cannot_be_limited_is_refused", HERE, refused),
        trial("its_own_kicks_get_through", HERE, command::its_own_kicks_get_through),
        trial("limits_change_at_random", HERE, command::random_changes),
        trial("killed_it_frees_the_vm", HERE, command::killed_it_frees_the_vm),
        trial(
            "interrupted_it_leaves_a_recording",
            HERE,
            command::interrupted_it_leaves_a_recording,
        ),
        trial(
            "it_ends_with_its_time_and_with_the_vm",
            HERE,
            command::it_ends_with_its_time_and_with_the_vm,
        ),
        trial("a_quota_for_all_is_judged_by_the_sum", HERE, command::a_quota_for_all),
        trial("qmp_clients_command_it", HERE, command::qmp_clients_command_it),
        trial("another_vmm_is_limited_too", HERE, command::another_vmm_is_limited_too),
        trial("what_can_not_be_is_told", HERE, command::what_can_not_be_is_told),
        trial("gaps_in_apic_ids_with_names", HERE, identity::gaps_with_names),
        trial("gaps_in_apic_ids_without_names", HERE, identity::gaps_without_names),
        trial("names_that_mislead", HERE, identity::names_that_mislead),
        trial("a_name_cut_in_the_middle_of_a_letter", HERE, identity::a_cut_name),
        trial("plugged_and_unplugged", HERE, identity::plugged_and_unplugged),
        trial("attached_to_by_index", HERE, identity::attached_to_by_index),
        trial("a_vm_that_never_ran", HERE, identity::a_vm_that_never_ran),
        trial("a_vm_by_its_name", HERE, identity::a_vm_by_its_name),
        trial(
            "the_units_capabilities_are_enough",
            HERE,
            unit::its_capabilities_are_enough,
        ),
        trial(
            "a_domain_of_libvirt",
            &[Need::Kvm, Need::Bpf, Need::Qemu, Need::Libvirt],
            libvirt::a_domain,
        ),
        trial(
            "answered_as_by_qemu_through_libvirt",
            &[Need::Kvm, Need::Bpf, Need::Qemu, Need::Libvirt],
            libvirt_monitor::answers_alike,
        ),
    ]);
}

/// Pages that `subjects` vCPUs wrote in a window, and its length in seconds.
fn watch(qemu: &Qemu, subjects: &[usize]) -> (u64, f64) {
    let written = || subjects.iter().map(|&vcpu| qemu.written(vcpu)).sum::<u64>();
    let (begun, before) = (Instant::now(), written());
    thread::sleep(WINDOW);
    (written() - before, begun.elapsed().as_secs_f64())
}

/// Checks that `subjects` vCPUs write what `quota` allows, together: in no window more than it and a burst each, and the page
/// that was under way; in one of some as much as nine tenths of it, for the machine may be busy in the others.
fn are_held(qemu: &Qemu, subjects: &[usize], quota: Quota) {
    const TRIES: usize = 30;
    let bursts = subjects.len() as f64 * DEPTH.burst.as_secs_f64();
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (pages, span_s) = watch(qemu, subjects);
        let due = quota.rate().pages_per_sec() * span_s;
        let most = due + quota.rate().pages_per_sec() * bursts + subjects.len() as f64;
        assert!(pages as f64 <= most, "vCPUs {subjects:?}: {pages} of {most:.0} pages");
        seen.push(pages as f64 / due);
        if pages as f64 >= 0.9 * due {
            return;
        }
    }
    panic!("vCPUs {subjects:?} get too little: {seen:.3?} of {quota:?}");
}

/// Waits until vCPU 0 is as fast as a guest that nobody limits: half of its speed before, which other processes may take from.
fn becomes_fast(qemu: &Qemu) {
    eventually("an unlimited vCPU", || {
        let (pages, span_s) = watch(qemu, &[0]);
        pages as f64 / PAGES_PER_MIB as f64 / span_s > qemu.speed() / 2.0
    });
}

fn keeps(ring: u32, vcpus: usize) -> Result<(), Failed> {
    let qemu = Qemu::logging(ring, vcpus)?;
    let quota = qemu.at_most(QUOTA_MIB_S);
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    assert_eq!(limiter.ring_entries(), ring);
    assert_eq!(limiter.books().len(), vcpus);
    limiter.set(Which::All, quota)?;
    for vcpu in 0..vcpus {
        are_held(&qemu, &[vcpu], quota);
    }
    limiter.cancel(Which::One(0))?;
    becomes_fast(&qemu);
    limiter.set(Which::All, quota)?;
    drop(limiter);
    is_free(&qemu);
    Ok(())
}

fn vm_keeps() -> Result<(), Failed> {
    let qemu = Qemu::logging(4096, 2)?;
    let quota = qemu.at_most(QUOTA_MIB_S);
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    limiter.set_vm(quota)?;
    for _ in 0..2 {
        are_held(&qemu, &[0, 1], quota);
    }
    limiter.cancel_vm()?;
    drop(limiter);
    is_free(&qemu);
    Ok(())
}

/// Guests that write and wait get their quota: each time that one is paused it has dirtied what came in, whatever kept it
/// from that before. A bucket of two pauses' depth lets them have half to three quarters. The last is charged on its way, or
/// it would get four fifths. In no window do they get more than that and what the bucket holds; in one of some they get it to
/// three parts in a hundred, for what a busy host keeps a vCPU from beyond the bucket is never made up.
fn waits() -> Result<(), Failed> {
    const WINDOWS: usize = 10;
    let deep = Depth {
        burst: Duration::from_secs(1),
        ..DEPTH
    };
    for program in ["burst:5000/100ms", "burst:170/6ms"] {
        let mut qemu = Qemu::running(program, Some(65536), 1)?;
        qemu.log_for_a_minute()?;
        let (pages, span_s) = watch(&qemu, &[0]);
        let asked = 0.75 * pages as f64 / PAGES_PER_MIB as f64 / span_s;
        let limiter = Limiter::attach(qemu.pid(), deep)?;
        limiter.set(Which::One(0), Quota::new(asked)?)?;
        let paused = || {
            let asked = || limiter.books()[0].1.asked;
            let before = asked();
            eventually("a pause", || asked() > before);
        };
        let mut seen = Vec::new();
        let is_held = |share: &f64| (share - 1.0).abs() < 0.03;
        while !seen.last().is_some_and(is_held) {
            assert!(seen.len() < WINDOWS, "{program}: {seen:.3?} of the quota");
            paused();
            let (begun, before) = (Instant::now(), qemu.written(0));
            thread::sleep(2 * WINDOW);
            paused();
            let span_s = begun.elapsed().as_secs_f64();
            let share = |pages: f64| pages / (asked * PAGES_PER_MIB as f64 * span_s);
            let got = share((qemu.written(0) - before) as f64);
            let most = 1.03 + deep.burst.as_secs_f64() / span_s;
            assert!(got <= most, "{program}: {got:.3} of the quota, {most:.3} at most");
            seen.push(got);
        }
    }
    Ok(())
}

/// On a VM that runs unlimited between the rounds, so that it is in the reset of its rings for much of the time: QEMU aborts
/// if a signal comes then. `DIRTYRIG_ATTACH_ROUNDS` asks for more rounds.
fn again_and_again() -> Result<(), Failed> {
    let rounds = std::env::var("DIRTYRIG_ATTACH_ROUNDS").map_or(30, |text| text.parse().expect("a number of rounds"));
    let mut qemu = Qemu::logging(4096, 2)?;
    let mut logging = command::Logging::new();
    for round in 0..rounds {
        logging.keep(&mut qemu)?;
        let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
        limiter.set(Which::All, qemu.at_most(QUOTA_MIB_S))?;
        thread::sleep(Duration::from_millis(round % 20));
        if round % 3 == 0 {
            limiter.cancel(Which::All)?;
        }
        drop(limiter);
        qemu.qmp
            .execute("query-status", &json!({}))
            .map_err(|error| format!("round {round}: {error:#}"))?;
    }
    is_free(&qemu);
    Ok(())
}

fn a_killed_vm_ends_it() -> Result<(), Failed> {
    let mut qemu = Qemu::logging(4096, 1)?;
    let limiter = Limiter::attach(qemu.pid(), DEPTH)?;
    limiter.set(Which::All, qemu.at_most(QUOTA_MIB_S))?;
    qemu.kill()?;
    eventually("the end", || limiter.end().is_some());
    assert!(matches!(limiter.cancel(Which::All), Err(OutsideError::Ended)));
    Ok(())
}

fn refused() -> Result<(), Failed> {
    let qemu = Qemu::start(None, 1)?;
    let error = Limiter::attach(qemu.pid(), DEPTH).expect_err("it has no ring");
    assert!(matches!(error, OutsideError::NoDirtyRing { .. }), "{error}");
    let error = Limiter::attach(std::process::id(), DEPTH)
        .expect_err("itself")
        .to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");

    let qemu = Qemu::logging(4096, 1)?;
    let quota = qemu.at_most(QUOTA_MIB_S);
    let first = Limiter::attach(qemu.pid(), DEPTH)?;
    first.set(Which::All, quota)?;
    let error = first.set(Which::One(7), quota).expect_err("it has one vCPU");
    assert!(matches!(error, OutsideError::UnknownVcpu { vcpu: 7, .. }), "{error}");
    let second = Limiter::attach(qemu.pid(), DEPTH).and_then(|second| second.set(Which::All, quota));
    let error = second.expect_err("a thread has one tracer");
    assert!(matches!(error, OutsideError::Held { .. }), "{error}");
    drop(first);
    is_free(&qemu);
    Ok(())
}

/// No thread is stopped or traced, and the guest goes on as fast as before.
fn is_free(qemu: &Qemu) {
    for (state, tracer) in qemu.threads() {
        assert!(
            tracer == 0 && !matches!(state, 't' | 'T'),
            "state {state}, traced by {tracer}"
        );
    }
    becomes_fast(qemu);
}

/// Waits until `done` holds; fails the test if it never does.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let given_up = Instant::now() + vm::PATIENCE;
    while !done() {
        assert!(Instant::now() < given_up, "still waiting for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
