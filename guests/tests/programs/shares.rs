//! How often which page: distributions, over a fixed seed so that each outcome is the same every time.

use std::sync::atomic::Ordering::Relaxed;

use dirtyrig_guests::{Program, block::SHARE_ONE};

use crate::{
    model::unevenness,
    vm::{Access, Vm, region},
};

const ACCESSES: usize = 20_000;

/// Well beyond what chance does at the sample sizes here (0.6 to 1.5), well below what any skew does.
const EVEN: std::ops::Range<f64> = 0.4..2.0;

fn configured(program: &str, pages: u64) -> Vm {
    let program: Program = program.parse().unwrap();
    let vm = Vm::new(&program, 0);
    program.configure(vm.block(), region(pages), 7, vm.tsc_hz());
    vm
}

fn counts(accesses: &[Access], pages: u64) -> Vec<u64> {
    let mut counts = vec![0; pages as usize];
    for access in accesses {
        counts[access.page() as usize] += 1;
    }
    counts
}

pub(crate) fn random_is_uniform() {
    let accesses = configured("random", 64).accesses(ACCESSES);
    let unevenness = unevenness(&counts(&accesses, 64));
    assert!(EVEN.contains(&unevenness), "{unevenness}");
}

pub(crate) fn hot_cold() {
    for (program, hot, share) in [
        ("hot-cold:10/90", 10, 0.9),
        ("hot-cold:20/80", 20, 0.8),
        ("hot-cold:50/5", 50, 0.05),
    ] {
        let accesses = configured(program, 100).accesses(ACCESSES);
        let counts = counts(&accesses, 100);
        let (hot, cold) = counts.split_at(hot);
        let got = hot.iter().sum::<u64>() as f64 / ACCESSES as f64;
        assert!((got - share).abs() < 0.01, "{program}: {got} of the writes are hot");
        for part in [hot, cold] {
            let unevenness = unevenness(part);
            assert!(EVEN.contains(&unevenness), "{program}: {unevenness}");
        }
    }
    // All or nothing is exact.
    let accesses = configured("hot-cold:10/100", 100).accesses(1_000);
    assert!(accesses.iter().all(|access| access.page() < 10));
    let accesses = configured("hot-cold:10/0", 100).accesses(1_000);
    assert!(accesses.iter().all(|access| (10..100).contains(&access.page())));
}

pub(crate) fn all_hot() {
    // The share that cold pages should have had goes to the hot ones: none may land behind the region.
    let accesses = configured("hot-cold:100/0", 8).accesses(1_000);
    assert!(accesses.iter().all(|access| access.page() < 8));
    // A share that rounds to no page at all still has one.
    let accesses = configured("hot-cold:1/100", 8).accesses(1_000);
    assert!(accesses.iter().all(|access| access.page() == 0));
}

pub(crate) fn mix() {
    let mut vm = configured("mix:30", 64);
    let accesses = vm.accesses(ACCESSES);
    let is_write = |access: &&Access| matches!(access, Access::Write { .. });
    let writes = accesses.iter().filter(is_write).count();
    let share = writes as f64 / ACCESSES as f64;
    assert!((share - 0.3).abs() < 0.01, "{share} of the accesses write");
    let unevenness = unevenness(&counts(&accesses, 64));
    assert!(EVEN.contains(&unevenness), "{unevenness}");

    // The last access hasn't retired.
    let retired = &accesses[..ACCESSES - 1];
    let writes = retired.iter().filter(is_write).count() as u64;
    assert_eq!(vm.block().pages_written.load(Relaxed), writes);
    assert_eq!(vm.block().pages_read.load(Relaxed), retired.len() as u64 - writes);
    assert_eq!(vm.block().passes.load(Relaxed), retired.len() as u64 / 64);

    vm.block().write_share.store(SHARE_ONE, Relaxed);
    assert!(vm.accesses(500).iter().all(|access| is_write(&access)));
    vm.block().write_share.store(0, Relaxed);
    assert!(!vm.accesses(500).iter().any(|access| is_write(&access)));
}
