//! The replayer: order, times, end.

use std::{
    sync::atomic::Ordering::{Acquire, Relaxed},
    thread,
};

use dirtyrig_guests::{
    Program,
    block::REPLAY_FOREVER,
    replay::{TICKS_PER_UNIT, table},
};

use crate::vm::{Access, SPARE_GPA, Vm, block_in, region};

fn configured(table: &[u64], runs: u64) -> Vm {
    let vm = Vm::new(&Program::Replay, 0);
    let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    vm.put(SPARE_GPA, &bytes);
    vm.block().set_replay(SPARE_GPA, table.len() as u64, runs);
    Program::Replay.configure(vm.block(), region(100), 0, vm.tsc_hz());
    vm
}

pub(crate) fn order() {
    // Repeats, steps back, and a page beyond the region (100), which is waited for and not written.
    let pages = [5, 5, 99, 0, 100, 42, 7, 5, 99];
    let written: Vec<u64> = pages.into_iter().filter(|&page| page < 100).map(u64::from).collect();
    let table = table(pages.into_iter().zip((0..).step_by(1000)));
    let mut vm = configured(&table, REPLAY_FOREVER);
    for run in 0..5 {
        for (n, &page) in written.iter().enumerate() {
            assert_eq!(vm.run(), Access::Write { page, value: 1 }, "run {run}, write {n}");
            assert_eq!(vm.block().pages_written.load(Relaxed), (run * written.len() + n) as u64);
            assert_eq!(vm.block().passes.load(Relaxed), run as u64);
        }
    }
}

pub(crate) fn times() {
    let tsc_hz = Vm::new(&Program::Replay, 0).tsc_hz();
    let step = tsc_hz / 1000;
    // Together, then after 1 ms, then after 7 more, and so on: 1 + 7 + 3 = 11 ms each time round.
    let mut tick = 0;
    let writes: Vec<(u32, u64)> = (0..60)
        .map(|n| {
            tick += [0, step, 7 * step, 3 * step][n as usize % 4];
            (n, tick)
        })
        .collect();
    let table = table(writes.iter().copied());
    assert_eq!(table.len(), 60);
    let mut vm = configured(&table, 1);
    let start = vm.tsc();
    let mut last = start;
    for &(page, due) in &writes {
        assert_eq!(vm.run().page(), u64::from(page));
        last = vm.tsc();
        assert!(last + TICKS_PER_UNIT + 1_000 >= start + due, "write {page} came early");
    }
    assert!(
        last - start < 2 * tick,
        "{} ticks for what should take {tick}",
        last - start
    );
}

pub(crate) fn waits() {
    let table = table([(3, 0), (4, 0)]);
    let mut vm = configured(&table, 1);
    assert_eq!([vm.run().page(), vm.run().page()], [3, 4]);
    let memory = vm.memory();
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            let block = block_in(&memory);
            // Pairs with the guest's stores, which stay in order: the run ended after its writes were counted.
            while block.passes.load(Acquire) == 0 {
                thread::yield_now();
            }
            assert_eq!(block.pages_written.load(Relaxed), 2);
            block.replay_runs.store(2, Relaxed);
        });
        assert_eq!([vm.run().page(), vm.run().page()], [3, 4]);
        host.join().unwrap();
    });
    assert_eq!(vm.block().pages_written.load(Relaxed), 3);
}
