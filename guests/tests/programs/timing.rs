//! Programs that go by the TSC, judged by the guest's own TSC as read at each access.
//!
//! That an access is never early holds whatever the machine does meanwhile. That it isn't late is only asked of sums
//! and medians, within a factor that leaves a busy machine plenty.

use std::sync::atomic::Ordering::Relaxed;

use dirtyrig_guests::Program;

use crate::vm::{Access, Vm, region};

/// A tick or two for rounding, and a few hundred for a TSC that the host reads a moment off.
const SLACK: u64 = 1_000;

fn configured(program: &Program) -> Vm {
    let vm = Vm::new(program, 0);
    program.configure(vm.block(), region(16), 0, vm.tsc_hz());
    vm
}

/// The TSC at each of the next `n` accesses.
fn times(vm: &mut Vm, n: usize) -> Vec<u64> {
    (0..n)
        .map(|_| {
            vm.run();
            vm.tsc()
        })
        .collect()
}

pub(crate) fn burst() {
    let mut vm = configured(&"burst:8/10ms".parse().unwrap());
    let pause = vm.tsc_hz() / 100;
    let times = times(&mut vm, 8 * 12);
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (mut between, mut within) = (Vec::new(), Vec::new());
    for (index, &gap) in gaps.iter().enumerate() {
        if index % 8 == 7 { &mut between } else { &mut within }.push(gap);
    }
    assert!(
        between.iter().all(|&gap| gap + SLACK >= pause),
        "{between:?} ticks, asked {pause}"
    );
    within.sort_unstable();
    let median = within[within.len() / 2];
    assert!(
        median < pause / 4,
        "{median} ticks within a burst, the pause has {pause}"
    );
    // The lengths are live: no pause, and a burst that never ends.
    vm.block().burst_pages.store(u64::MAX, Relaxed);
    vm.accesses(8);
    let start = vm.tsc();
    vm.accesses(100);
    assert!(vm.tsc() - start < 100 * pause / 8);
}

/// A write each 2 ms: far more than an exit costs, so a machine of any speed can keep it.
const PACED: Program = Program::Paced {
    mib_per_sec: 500.0 / 256.0,
};

pub(crate) fn paced() {
    let mut vm = configured(&PACED);
    let interval = vm.tsc_hz() / 500;
    let start = vm.tsc();
    let times = times(&mut vm, 120);
    for (n, &time) in times.iter().enumerate() {
        let due = start + n as u64 * interval;
        assert!(time + SLACK >= due, "write {n} came {} ticks early", due - time);
    }
    let (took, asked) = (times[119] - times[0], 119 * interval);
    assert!(took < 2 * asked, "{took} ticks for what should take {asked}");
}

pub(crate) fn paced_catches_up() {
    let mut vm = configured(&PACED);
    let interval = vm.tsc_hz() / 500;
    vm.block().catch_up_ticks.store(vm.tsc_hz() * 3600, Relaxed);
    vm.accesses(1);
    let start = hold(&vm, 100 * interval);
    vm.accesses(100);
    let took = vm.tsc() - start;
    assert!(
        took < 50 * interval,
        "{took} ticks to catch up, which should take next to none of {}",
        100 * interval
    );
}

pub(crate) fn paced_forgets() {
    let mut vm = configured(&PACED);
    let interval = vm.tsc_hz() / 500;
    let catch_up = 5 * interval;
    assert_eq!(vm.block().catch_up_ticks.load(Relaxed), vm.tsc_hz() / 100);
    vm.block().catch_up_ticks.store(catch_up, Relaxed);
    vm.accesses(1);
    let start = hold(&vm, 100 * interval);
    for n in 0..60 {
        vm.run();
        let earliest = start + (n * interval).saturating_sub(catch_up);
        assert!(
            vm.tsc() + SLACK >= earliest,
            "write {n} after the hold made up for more than {catch_up} ticks"
        );
    }
}

const PHASES: &str = "phases:sequential*20ms/idle*30ms/reader*20ms";

pub(crate) fn phases() {
    const CYCLES: u64 = 6;
    let mut vm = configured(&PHASES.parse().unwrap());
    let ms = vm.tsc_hz() / 1_000;
    let start = vm.tsc();
    assert!(matches!(vm.run(), Access::Write { .. }));
    // When each change of the pattern was seen: to reading, to writing, and so on.
    let (mut reads, mut changes) = (false, Vec::new());
    while changes.len() < 2 * CYCLES as usize {
        let is_read = matches!(vm.run(), Access::Read { .. });
        if is_read != reads {
            reads = is_read;
            changes.push(vm.tsc());
        }
    }
    for (cycle, pair) in (0..).zip(changes.chunks_exact(2)) {
        for (time, due_ms) in [(pair[0], 70 * cycle + 50), (pair[1], 70 * cycle + 70)] {
            let due = start + due_ms * ms;
            assert!(time + SLACK >= due, "a phase began {} ticks early", due - time);
        }
    }
    let (took, asked) = (changes.last().unwrap() - start, 70 * CYCLES * ms);
    assert!(took < 2 * asked, "{took} ticks for what should take {asked}");
}

pub(crate) fn phase_after_a_stall() {
    let mut vm = configured(&PHASES.parse().unwrap());
    let ms = vm.tsc_hz() / 1_000;
    assert!(matches!(vm.run(), Access::Write { .. }));
    // The rest of the writing phase, and all of the idle one.
    let end = hold(&vm, 300 * ms);
    let read = vm.run();
    assert!(matches!(read, Access::Read { .. }), "{read:?}: the phase was over");
    let idle = vm.tsc() - end;
    assert!(
        idle + SLACK >= 30 * ms,
        "the idle phase lasted {idle} ticks of {}",
        30 * ms
    );
}

/// Keeps the vCPU out of the guest for so many ticks, and returns when that ended.
fn hold(vm: &Vm, ticks: u64) -> u64 {
    let start = vm.tsc();
    loop {
        let now = vm.tsc();
        if now - start >= ticks {
            return now;
        }
        std::thread::yield_now();
    }
}
