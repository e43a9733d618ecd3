//! What is left in memory, where there is memory: all pages of the region but the last, whose accesses come out.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use dirtyrig_guests::Program;

use crate::{
    model::{Sequence, pick},
    vm::{Access, Vm, region},
};

const PAGES: u64 = 512;

pub(crate) fn writers() {
    for name in [
        "sequential",
        "random",
        "hot-cold:10/50",
        "burst:100/10us",
        "mix:50",
        "paced:100000",
        "phases:burst:100/10us*20us/idle*20us/paced:100000*20us/sequential*20us",
    ] {
        let program: Program = name.parse().unwrap();
        let mut vm = Vm::new(&program, PAGES - 1);
        program.configure(vm.block(), region(PAGES), 11, vm.tsc_hz());
        let mut model = Model::new(name, vm.block().seed.load(Relaxed));
        let mut expected = vec![0; PAGES as usize];
        let (mut written, mut read) = (0, 0);
        // Each stretch between two exits writes a value of its own.
        for iteration in 1..=200 {
            vm.block().iteration.store(iteration, Relaxed);
            let exit = vm.run();
            assert_eq!(exit.page(), PAGES - 1);
            loop {
                let (page, is_write) = model.access();
                if page == PAGES - 1 {
                    assert_eq!(is_write, matches!(exit, Access::Write { .. }), "{name}");
                    assert_eq!(vm.block().pages_written.load(Acquire), written, "{name}");
                    assert_eq!(vm.block().pages_read.load(Acquire), read, "{name}");
                    (written, read) = (written + u64::from(is_write), read + u64::from(!is_write));
                    break;
                }
                if is_write {
                    expected[page as usize] = iteration;
                }
                (written, read) = (written + u64::from(is_write), read + u64::from(!is_write));
            }
            for page in 0..PAGES - 1 {
                assert_eq!(vm.word(page), expected[page as usize], "{name}, page {page}");
            }
        }
        assert!(written > 10_000, "{name}: {written} writes test little");
    }
}

pub(crate) fn readers() {
    for name in ["reader", "mix:0"] {
        let program: Program = name.parse().unwrap();
        let mut vm = Vm::new(&program, PAGES - 1);
        program.configure(vm.block(), region(PAGES), 11, vm.tsc_hz());
        for page in 0..PAGES - 1 {
            vm.set_word(page, page * 3 + 1);
        }
        for access in vm.accesses(20) {
            assert_eq!(access, Access::Read { page: PAGES - 1 });
        }
        assert!(vm.block().pages_read.load(Relaxed) > PAGES);
        assert_eq!(vm.block().pages_written.load(Relaxed), 0);
        for page in 0..PAGES - 1 {
            assert_eq!(vm.word(page), page * 3 + 1, "{name}, page {page}");
        }
    }
}

/// Which page each program touches next, and whether it writes.
struct Model {
    name: &'static str,
    sequence: Sequence,
    next: u64,
}

impl Model {
    fn new(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            sequence: Sequence::new(seed),
            next: 0,
        }
    }

    fn access(&mut self) -> (u64, bool) {
        let half = 1 << 31;
        match self.name {
            "random" => (pick(self.sequence.number(), PAGES), true),
            "hot-cold:10/50" => {
                let number = self.sequence.number();
                let hot = PAGES.div_ceil(10);
                let page = if (number as u32) < half {
                    pick(number, hot)
                } else {
                    hot + pick(number, PAGES - hot)
                };
                (page, true)
            }
            "mix:50" => {
                let number = self.sequence.number();
                (pick(number, PAGES), (number as u32) < half)
            }
            _ => {
                self.next += 1;
                ((self.next - 1) % PAGES, true)
            }
        }
    }
}
