//! No page is lost: the idea of the kernel's `dirty_log_test`, against the ring alone.
//!
//! Guests write iteration numbers into pages. What a page holds is noted after its entry was reset, when it is
//! write-protected: from then on it can't change without being logged again. So at the end, with every vCPU out of the
//! guest and every ring empty, each page holds what was noted of it last, or a write was lost.
//!
//! `DIRTYRIG_ORACLE_WRITES` sets how many page writes a case makes at least (default: 20,000).

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dirtyrig_guests::{
    Program, Region as Pattern,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_machine::{
    memory::{GuestMemory, HugePages, Region},
    start_in_long_mode,
};
use dirtyrig_ring::{DirtyRing, RingSize, enable, reset};
use dirtyrig_testkit::{Need, run, trial};
use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use libtest_mimic::Failed;

const PAGE: u64 = 4096;

/// More than the larger of the rings holds, so that a vCPU that nobody reaps leaves the guest.
const PAGES_EACH: u64 = 6000;

/// How often a new number goes round.
const ITERATION: Duration = Duration::from_millis(1);

fn main() {
    let mut trials = Vec::new();
    for ring in [1024, 4096] {
        for vcpus in [1, 2] {
            let name = format!("no_page_is_lost_ring_{ring}_vcpus_{vcpus}");
            trials.push(trial(&name, &[Need::Kvm], move || no_page_is_lost(ring, vcpus)));
        }
    }
    run(trials);
}

/// Every ring of the VM, and what each page held when it was last reset: one lock, as the reset works on all rings.
struct Log<'vm> {
    vm: &'vm VmFd,
    memory: &'vm GuestMemory,
    rings: Vec<DirtyRing>,
    noted: Vec<u64>,
}

impl Log<'_> {
    /// Empties the rings of `vcpus` and notes what their pages hold, all but the newest `hold` of each.
    fn reap(&mut self, vcpus: impl Iterator<Item = usize>, hold: u64) -> Result<(), Failed> {
        let mut pages = Vec::new();
        let mut released = 0;
        for vcpu in vcpus {
            self.rings[vcpu].harvest();
            released += self.rings[vcpu].release(hold, |page| pages.push(page.offset));
        }
        reset(self.vm, released)?;
        for page in pages {
            self.noted[page as usize] = contents(self.memory, page)?;
        }
        Ok(())
    }
}

fn no_page_is_lost(ring: u32, vcpus: usize) -> Result<(), Failed> {
    let wanted: u64 = std::env::var("DIRTYRIG_ORACLE_WRITES").map_or(Ok(20_000), |text| text.parse())?;
    let (kvm, size) = (Kvm::new()?, RingSize::new(ring)?);
    let vm = kvm.create_vm()?;
    enable(&kvm, &vm, size)?;
    let programs = vec![Program::Sequential, Program::Random][..vcpus].to_vec();
    let bytes = vcpus as u64 * PAGES_EACH * PAGE;
    let guest = LowMemory::build(&programs, REGION_BASE + bytes)?;
    let memory = memory(&vm, &guest.bytes, bytes)?;
    let mut fds = Vec::new();
    for (vcpu, (program, entry)) in programs.iter().zip(&guest.entries).enumerate() {
        let fd = vm.create_vcpu(vcpu as u64)?;
        fd.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        start_in_long_mode(&fd, *entry)?;
        let pattern = Pattern {
            gpa: REGION_BASE + vcpu as u64 * PAGES_EACH * PAGE,
            pages: PAGES_EACH,
        };
        let block = memory.block(LowMemory::block_gpa(vcpu))?;
        program.configure(block, pattern, 1 + vcpu as u64, u64::from(fd.get_tsc_khz()?) * 1000);
        fds.push(fd);
    }
    let log = Mutex::new(Log {
        vm: &vm,
        memory: &memory,
        rings: fds
            .iter()
            .map(|fd| DirtyRing::map(fd, size))
            .collect::<Result<_, _>>()?,
        noted: vec![0; (PAGES_EACH * vcpus as u64) as usize],
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| -> Result<(), Failed> {
        let threads: Vec<_> = fds
            .into_iter()
            .enumerate()
            .map(|(vcpu, fd)| {
                scope.spawn({
                    let (log, stop) = (&log, &stop);
                    move || run_vcpu(vcpu, fd, log, stop)
                })
            })
            .collect();
        let drive = || -> Result<(), Failed> {
            let (mut iteration, mut writes) = (0, 0);
            while writes < wanted || iteration < 200 {
                iteration += 1;
                writes = 0;
                for vcpu in 0..vcpus {
                    let block = memory.block(LowMemory::block_gpa(vcpu))?;
                    // Relaxed: lone values; that the guest sees the number a little later is part of the game.
                    block.iteration.store(iteration, Ordering::Relaxed);
                    writes += block.pages_written.load(Ordering::Relaxed);
                }
                thread::sleep(ITERATION);
                // Sometimes with entries held back, whose pages may be written without being logged.
                log.lock()
                    .expect("no thread panics")
                    .reap(0..vcpus, iteration % 3 * 100)?;
            }
            Ok(())
        };
        let driven = drive();
        // Relaxed: a lone flag; its vCPU looks at it at its next full ring.
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a vCPU's thread does not panic")?;
        }
        driven
    })?;
    let mut log = log.into_inner().expect("no thread panicked");
    log.reap(0..vcpus, 0)?;
    let mut lost = Vec::new();
    for (page, noted) in (0_u64..).zip(&log.noted) {
        if contents(&memory, page)? != *noted {
            lost.push(page);
        }
    }
    assert!(
        lost.is_empty(),
        "{} pages changed unlogged, the first is {}",
        lost.len(),
        lost[0]
    );
    assert!(
        log.noted.iter().any(|noted| *noted > 1),
        "nothing was ever noted: the oracle watched nothing"
    );
    Ok(())
}

/// Runs a vCPU until it leaves the guest after `stop` was raised. It reaps its own ring whenever that is full.
fn run_vcpu(vcpu: usize, mut fd: VcpuFd, log: &Mutex<Log<'_>>, stop: &AtomicBool) -> Result<(), Failed> {
    while !stop.load(Ordering::Relaxed) {
        match fd.run()? {
            VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL) => {
                log.lock().expect("no thread panics").reap(std::iter::once(vcpu), 0)?;
            }
            other => return Err(format!("vCPU {vcpu} left the guest unexpectedly: {other:?}").into()),
        }
    }
    Ok(())
}

fn contents(memory: &GuestMemory, page: u64) -> Result<u64, Failed> {
    Ok(memory.read_u64(REGION_BASE + page * PAGE)?)
}

/// Low memory with `image` in it, and `bytes` that are logged.
fn memory(vm: &VmFd, image: &[u8], bytes: u64) -> Result<GuestMemory, Failed> {
    let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
    let regions = [region(0, image.len() as u64, false), region(REGION_BASE, bytes, true)];
    let memory = GuestMemory::populated(&regions, HugePages::Never)?;
    memory.write(0, image)?;
    // SAFETY: the caller keeps it until the VM's last run is over.
    unsafe { memory.give_to(vm) }?;
    Ok(memory)
}
