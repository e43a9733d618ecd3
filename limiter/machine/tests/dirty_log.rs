//! No page is lost: the oracle of the kernel's `dirty_log_test`, against every limiter.
//!
//! Guests write iteration numbers into pages. What a page holds is noted after its entry was reset, when it is
//! write-protected: from then on it can't change without being logged again. So at the end, with every vCPU out of the
//! guest and every ring empty, each page holds what was noted of it last, or a write was lost.
//!
//! `DIRTYRIG_ORACLE_WRITES` sets how many page writes a case makes at least (default: 20,000).

mod support;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::Duration,
};

use dirtyrig_guests::{Program, image::REGION_BASE};
use dirtyrig_limiter::{
    DirtySink,
    law::LimiterKind,
    limit::Which,
    units::{PAGE_SIZE, Quota},
};
use dirtyrig_machine::Machine;
use dirtyrig_ring::DirtyPage;
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use support::{Small, block};

/// Larger than the ring of 1024 entries and smaller than that of 4096: with and without ring-full exits.
const PAGES_EACH: u64 = 3000;

/// How often a new number goes round.
const ITERATION: Duration = Duration::from_millis(1);

/// How many numbers go round between two looks at what was dirtied. In the long ones pages are written over and over, of
/// which only the first write is logged.
const LOOKS: [u64; 4] = [10, 20, 5, 150];

const KVM: &[Need] = &[Need::Kvm];
const BPF: &[Need] = &[Need::Kvm, Need::Bpf];

fn main() {
    let limited = [
        LimiterKind::QemuV11,
        LimiterKind::Qemu72,
        LimiterKind::Qemu10,
        LimiterKind::RingSleep,
        LimiterKind::AutoConverge,
        LimiterKind::DirtyQuota,
        LimiterKind::Budget,
        LimiterKind::BudgetEbpf,
        LimiterKind::Ballast,
    ];
    let mut trials = Vec::new();
    for ring in [1024, 4096, 16384, 65536] {
        for vcpus in [1, 2] {
            let name = format!("none_ring_{ring}_vcpus_{vcpus}");
            trials.push(trial(&name, KVM, move || {
                no_page_is_lost(LimiterKind::None, ring, vcpus)
            }));
        }
    }
    for kind in limited {
        let name = format!("{kind}_ring_1024_vcpus_2");
        let needs = if kind == LimiterKind::BudgetEbpf { BPF } else { KVM };
        trials.push(trial(&name, needs, move || no_page_is_lost(kind, 1024, 2)));
    }
    run(trials);
}

/// The pages dirtied since they were last taken.
#[derive(Clone, Default)]
struct Dirtied(Arc<Mutex<Vec<u64>>>);

impl Dirtied {
    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().expect("no test thread panics with it"))
    }
}

impl DirtySink for Dirtied {
    fn dirty(&self, _vcpu: usize, page: DirtyPage) {
        self.0.lock().expect("no test thread panics with it").push(page.offset);
    }
}

fn no_page_is_lost(kind: LimiterKind, ring: u32, vcpus: usize) -> Result<(), Failed> {
    let wanted: u64 = std::env::var("DIRTYRIG_ORACLE_WRITES").map_or(Ok(20_000), |text| text.parse())?;
    let dirtied = Dirtied::default();
    let mut small = Small::new(ring, kind);
    small.pages_each = PAGES_EACH;
    small.programs = vec![Program::Sequential, Program::Random][..vcpus].to_vec();
    small.period = Duration::from_millis(100);
    let machine = small.build(Some(Box::new(dirtied.clone())));
    if kind != LimiterKind::None {
        machine.limit().set(Which::All, Quota::new(40.0)?)?;
    }
    for vcpu in 0..vcpus {
        machine.plug(vcpu);
    }
    let mut noted = vec![0; PAGES_EACH as usize * vcpus];
    let mut iteration = 0;
    let mut writes = 0;
    let mut looks = LOOKS.iter().cycle();
    while writes < wanted || iteration < 2 * LOOKS.iter().sum::<u64>() {
        for _ in 0..*looks.next().expect("a cycle has no end") {
            iteration += 1;
            for vcpu in 0..vcpus {
                // Relaxed: a lone value; that the guest sees it a little later is part of the game.
                block(&machine, vcpu).iteration.store(iteration, Ordering::Relaxed);
            }
            thread::sleep(ITERATION);
        }
        note(&machine, &dirtied, &mut noted)?;
        writes = (0..vcpus)
            .map(|vcpu| block(&machine, vcpu).pages_written.load(Ordering::Relaxed))
            .sum();
        if let Some(error) = machine.take_failure() {
            return Err(error.into());
        }
    }
    for vcpu in 0..vcpus {
        machine.unplug(vcpu);
    }
    machine.release_held()?;
    note(&machine, &dirtied, &mut noted)?;
    let lost: Vec<_> = (0..noted.len())
        .filter(|page| contents(&machine, *page as u64) != noted[*page])
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} pages changed unlogged, the first is {}",
        lost.len(),
        noted.len(),
        lost[0]
    );
    assert!(
        noted.iter().any(|value| *value > 1),
        "nothing was ever noted: the oracle watched nothing"
    );
    machine.stop()?;
    Ok(())
}

/// Notes what the pages hold that were dirtied and reset.
fn note(machine: &Machine, dirtied: &Dirtied, noted: &mut [u64]) -> Result<(), Failed> {
    let pages = dirtied.take();
    // Takes the lock under which rings are reaped: whoever put `pages` there has reset them by now.
    machine.flush()?;
    for page in pages {
        noted[page as usize] = contents(machine, page);
    }
    Ok(())
}

fn contents(machine: &Machine, page: u64) -> u64 {
    machine
        .memory()
        .read_u64(REGION_BASE + page * PAGE_SIZE)
        .expect("the page is the guest's")
}
