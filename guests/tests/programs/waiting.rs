//! A program without a region waits, and starts when it gets one.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use dirtyrig_guests::Program;

use crate::{
    order::ALL,
    vm::{SPARE_GPA, Vm, block_in, region},
};

pub(crate) fn waits_and_starts() {
    for name in ALL {
        let program: Program = name.parse().unwrap();
        let mut vm = Vm::new(&program, 0);
        vm.put(SPARE_GPA, &0_u64.to_le_bytes());
        let tsc_hz = vm.tsc_hz();
        // The host, on a thread of its own as the vCPU is inside KVM_RUN. Its delay only makes it likely that the guest
        // waits by then; if it doesn't, the test passes as well.
        let start_soon = |memory, seed, pages| {
            thread::sleep(Duration::from_millis(5));
            let block = block_in(memory);
            block.set_replay(SPARE_GPA, 1, u64::MAX);
            program.configure(block, region(pages), seed, tsc_hz);
        };
        let memory = vm.memory();
        thread::scope(|scope| {
            scope.spawn(|| start_soon(&memory, 1, 1));
            assert_eq!(vm.run().page(), 0, "{name}");
        });

        // A region of one page: the access that is on its way is the pass's last.
        vm.block().park();
        let passes = vm.block().passes.load(Relaxed);
        thread::scope(|scope| {
            scope.spawn(|| {
                let block = block_in(&memory);
                while block.passes.load(Relaxed) == passes {
                    thread::yield_now();
                }
                start_soon(&memory, 2, 3);
            });
            vm.run();
            assert_eq!(
                vm.block().passes.load(Relaxed),
                passes + 1,
                "{name}: it went on although it was parked"
            );
        });
    }
}
