//! Which pages, in which order, with which value; and that the counters say so.

use std::sync::atomic::Ordering::Relaxed;

use dirtyrig_guests::{Program, Region, image::LowMemory};

use crate::{
    model::{Sequence, pick},
    vm::{Access, SPARE_GPA, Vm, region},
};

/// One of each.
pub(crate) const ALL: [&str; 9] = [
    "sequential",
    "random",
    "hot-cold:10/90",
    "burst:3/50us",
    "reader",
    "mix:30",
    "paced:500",
    "replay",
    "phases:sequential*3600s/idle*1us",
];

fn configured(program: &str, region: Region, seed: u64) -> Vm {
    let program: Program = program.parse().unwrap();
    let vm = Vm::new(&program, 0);
    if program == Program::Replay {
        vm.put(SPARE_GPA, &0_u64.to_le_bytes());
        vm.block().set_replay(SPARE_GPA, 1, u64::MAX);
    }
    program.configure(vm.block(), region, seed, vm.tsc_hz());
    vm
}

pub(crate) fn sequential() {
    let mut vm = configured("sequential", region(7), 0);
    for n in 0..40 {
        assert_eq!(vm.run(), Access::Write { page: n % 7, value: 1 });
        let block = vm.block();
        assert_eq!(
            block.pages_written.load(Relaxed),
            n,
            "a write that hasn't retired isn't counted"
        );
        assert_eq!(block.passes.load(Relaxed), n / 7);
        assert_eq!(block.pages_read.load(Relaxed), 0);
    }
}

pub(crate) fn reader() {
    let mut vm = configured("reader", region(7), 0);
    for n in 0..40 {
        assert_eq!(vm.run(), Access::Read { page: n % 7 });
        let block = vm.block();
        assert_eq!(block.pages_read.load(Relaxed), n);
        assert_eq!(block.passes.load(Relaxed), n / 7);
        assert_eq!(block.pages_written.load(Relaxed), 0);
    }
}

pub(crate) fn iteration_is_live() {
    for program in ALL.into_iter().filter(|&name| name != "reader") {
        let mut vm = configured(program, region(5), 3);
        for iteration in 100..120 {
            vm.block().iteration.store(iteration, Relaxed);
            // The write that is on its way at an exit was read before; the next one shows the new value.
            let value = loop {
                match vm.run() {
                    Access::Write { value, .. } => break value,
                    Access::Read { .. } => {}
                }
            };
            assert_eq!(value, iteration, "{program}");
        }
    }
}

pub(crate) fn random() {
    let mut vm = configured("random", region(1000), 42);
    let mut sequence = Sequence::new(vm.block().seed.load(Relaxed));
    for n in 0..5_000 {
        let page = pick(sequence.number(), 1000);
        assert_eq!(vm.run(), Access::Write { page, value: 1 });
        assert_eq!(vm.block().pages_written.load(Relaxed), n);
        assert_eq!(vm.block().passes.load(Relaxed), n / 1000);
    }
}

pub(crate) fn seeds_differ() {
    for program in ["random", "hot-cold:10/90", "mix:30"] {
        let pages = |seed| configured(program, region(1000), seed).accesses(20);
        assert_eq!(pages(1), pages(1), "{program}");
        assert_ne!(pages(1), pages(2), "{program}");
        assert_ne!(pages(0), pages(1), "{program}");
    }
}

pub(crate) fn as_a_phase() {
    let can_be_one = |name: &&str| *name != "replay" && !name.starts_with("phases");
    for name in ALL.into_iter().filter(can_be_one) {
        // Nothing of the phase before is left over: it lasts for no access at all.
        let phases = format!("phases:idle*1us/{name}*3600s");
        assert_eq!(
            configured(&phases, region(50), 6).accesses(200),
            configured(name, region(50), 6).accesses(200),
            "{name}"
        );
    }
}

pub(crate) fn one_page() {
    for program in ALL {
        let mut vm = configured(program, region(1), 9);
        for access in vm.accesses(50) {
            assert_eq!(access.page(), 0, "{program}");
        }
        assert_eq!(vm.block().passes.load(Relaxed), 49, "{program}");
    }
}

pub(crate) fn position_independent() {
    for name in ALL {
        let program: Program = name.parse().unwrap();
        let here = configured(name, region(5), 4).accesses(50);
        let mut vm = configured(name, region(5), 4);
        // Nothing but the bytes themselves, at an address that isn't even aligned.
        let rip = SPARE_GPA + 0x1_0013;
        vm.put(rip, program.code());
        let mut entry = LowMemory::entry(0, &program);
        assert_ne!(entry.rip, rip);
        entry.rip = rip;
        vm.enter_at(entry);
        assert_eq!(vm.accesses(50), here, "{name}");
    }
}

pub(crate) fn counting_goes_on() {
    for name in ALL {
        let program: Program = name.parse().unwrap();
        let mut vm = configured(name, region(5), 4);
        vm.accesses(33);
        let counts = |vm: &Vm| {
            let block = vm.block();
            [
                block.pages_written.load(Relaxed) + block.pages_read.load(Relaxed),
                block.passes.load(Relaxed),
            ]
        };
        // The replayer's table here has one entry.
        let passes = if program == Program::Replay { 32 } else { 6 };
        assert_eq!(counts(&vm), [32, passes], "{name}");
        let mut again = Vm::new(&program, 0);
        for (to, from) in [
            (&again.block().pages_written, &vm.block().pages_written),
            (&again.block().pages_read, &vm.block().pages_read),
            (&again.block().passes, &vm.block().passes),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
        if program == Program::Replay {
            again.block().set_replay(SPARE_GPA, 1, u64::MAX);
        }
        program.configure(again.block(), region(5), 4, again.tsc_hz());
        again.run();
        assert_eq!(
            counts(&again),
            [32, passes],
            "{name}: configuring and starting keep the counts"
        );
        again.accesses(5);
        let passes = if program == Program::Replay { 37 } else { passes + 1 };
        assert_eq!(counts(&again), [37, passes], "{name}");
    }
}
