//! The way in for other VMMs, taken by a small one: a plain kvm-ioctls VM that keeps its own `KVM_RUN` loop.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    Program, Region as Pattern,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_limiter::{
    DirtySink, Error, KickSignal, LimiterSpec, Phase,
    attach::{Ran, VmLimiter, VmSpec},
    law::LimiterKind,
    limit::Which,
    units::Quota,
};
use dirtyrig_machine::{
    memory::{GuestMemory, HugePages, Region},
    start_in_long_mode,
};
use dirtyrig_ring::{DirtyPage, RingSize};
use dirtyrig_testkit::{Need, run, trial};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use libtest_mimic::Failed;

const PAGES: u64 = 4096;

/// Against a test that hangs; nothing here takes long, however slow the host is.
const GIVEN_UP: Duration = Duration::from_secs(60);

fn main() {
    const KVM: &[Need] = &[Need::Kvm];
    run(vec![
        trial(
            "a_vcpu_is_held_freed_and_stopped",
            KVM,
            a_vcpu_is_held_freed_and_stopped,
        ),
        trial(
            "a_paused_vm_has_told_of_every_page",
            KVM,
            a_paused_vm_has_told_of_every_page,
        ),
        trial(
            "a_vcpu_that_comes_back_is_limited_again",
            KVM,
            a_vcpu_that_comes_back_is_limited_again,
        ),
        trial(
            "what_cannot_be_taken_in_is_refused",
            KVM,
            what_cannot_be_taken_in_is_refused,
        ),
    ]);
}

/// A VM with one vCPU that writes page after page. Declared in the order in which it goes.
struct Vmm {
    kvm: Kvm,
    vm: Arc<VmFd>,
    memory: Arc<GuestMemory>,
    guest: LowMemory,
    ring: RingSize,
}

impl Vmm {
    fn new() -> Result<Self, Failed> {
        let (kvm, ring) = (Kvm::new()?, RingSize::new(1024)?);
        let vm = Arc::new(kvm.create_vm()?);
        dirtyrig_ring::enable(&kvm, &vm, ring)?;
        let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
        let data = region(REGION_BASE, PAGES * 4096, true);
        let guest = LowMemory::build(&[Program::Sequential], data.gpa + data.bytes)?;
        let regions = [region(0, guest.bytes.len() as u64, false), data];
        let memory = Arc::new(GuestMemory::populated(&regions, HugePages::Never)?);
        memory.write(0, &guest.bytes)?;
        // SAFETY: the threads that run vCPUs are scoped, and `self` outlives their scope.
        unsafe { memory.give_to(&vm) }?;
        Ok(Self {
            kvm,
            vm,
            memory,
            guest,
            ring,
        })
    }

    fn create_vcpu(&self, index: u64) -> Result<VcpuFd, Failed> {
        let fd = self.vm.create_vcpu(index)?;
        fd.set_cpuid2(&self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        start_in_long_mode(&fd, self.guest.entries[0])?;
        let block = self.memory.block(LowMemory::block_gpa(0))?;
        let pattern = Pattern {
            gpa: REGION_BASE,
            pages: PAGES,
        };
        Program::Sequential.configure(block, pattern, 1, u64::from(fd.get_tsc_khz()?) * 1000);
        Ok(fd)
    }

    fn limiter(&self, kind: LimiterKind, sink: Option<Box<dyn DirtySink>>) -> Result<VmLimiter, Failed> {
        let mut limiter = LimiterSpec::new(kind);
        limiter.period = Duration::from_millis(200);
        limiter.burst = Duration::from_millis(10);
        let mut spec = VmSpec::new(self.ring, 1, limiter);
        spec.sink = sink;
        Ok(VmLimiter::new(Arc::clone(&self.vm), spec)?)
    }

    fn written(&self) -> u64 {
        let block = self.memory.block(LowMemory::block_gpa(0));
        // Relaxed: the count alone is looked at.
        block.expect("it is there").pages_written.load(Ordering::Relaxed)
    }
}

/// The loop of a VMM's vCPU thread, until the limiter is stopped.
fn run_vcpu(limiter: &VmLimiter, fd: VcpuFd) -> Result<(), Failed> {
    let mut vcpu = limiter.vcpu(0, fd, None)?;
    loop {
        match vcpu.run()? {
            Ran::Again => {}
            Ran::Stopped => return Ok(()),
            Ran::Exit(exit) => return Err(format!("the guest left unexpectedly: {exit:?}").into()),
        }
    }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Result<(), Failed> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > GIVEN_UP {
            return Err(format!("{what} never happened").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn a_vcpu_is_held_freed_and_stopped() -> Result<(), Failed> {
    let vmm = Vmm::new()?;
    let limiter = vmm.limiter(LimiterKind::Budget, None)?;
    let fd = vmm.create_vcpu(0)?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| run_vcpu(&limiter, fd));
        let test = || -> Result<(), Failed> {
            eventually("a page", || limiter.harvested(0).0 > 0)?;
            limiter.limit().set(Which::All, Quota::new(1.0)?)?;
            eventually("a pause", || limiter.stats(0).slept > Duration::ZERO)?;
            // 1 MiB/s are 256 pages per second, which every host does many times over when it is free.
            let (begun, before) = (Instant::now(), vmm.written());
            thread::sleep(Duration::from_secs(1));
            let (pages, span) = (vmm.written() - before, begun.elapsed().as_secs_f64());
            let most = 256.0 * span * 1.02 + 32.0;
            assert!((128.0..=most).contains(&(pages as f64)), "{pages} pages in {span:.2} s");
            limiter.limit().cancel(Which::All)?;
            let free = vmm.written();
            eventually("a free run", || vmm.written() - free > 20 * 256)?;
            assert_eq!(limiter.phase(0), Phase::Running);
            Ok(())
        };
        let tested = test();
        limiter.stop();
        thread.join().expect("no panic")?;
        tested
    })
}

/// The pages that were passed on.
#[derive(Clone, Default)]
struct Dirtied(Arc<Mutex<HashSet<u64>>>);

impl DirtySink for Dirtied {
    fn dirty(&self, _vcpu: usize, page: DirtyPage) {
        self.0.lock().expect("no panic").insert(page.offset);
    }
}

fn a_paused_vm_has_told_of_every_page() -> Result<(), Failed> {
    let vmm = Vmm::new()?;
    let dirtied = Dirtied::default();
    // It holds more entries back than any other limiter.
    let limiter = vmm.limiter(LimiterKind::Ballast, Some(Box::new(dirtied.clone())))?;
    let fd = vmm.create_vcpu(0)?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| run_vcpu(&limiter, fd));
        let test = || -> Result<(), Failed> {
            limiter.limit().set(Which::All, Quota::new(2.0)?)?;
            eventually("entries held back", || limiter.held(0).0 > 0 && vmm.written() > 100)?;
            limiter.flush()?;
            limiter.pause(0);
            assert_eq!(limiter.phase(0), Phase::Parked);
            let told = |dirtied: &Dirtied| dirtied.0.lock().expect("no panic").len() as u64;
            let (written, before) = (vmm.written(), told(&dirtied));
            assert!(
                before < written,
                "{before} of {written} pages were told of: nothing was held back"
            );
            limiter.release_held()?;
            assert_eq!(limiter.held(0).0, 0);
            // Its last page may be logged and not yet written; and it writes its pages in order, round and round.
            let pages = told(&dirtied);
            assert!(
                [written.min(PAGES), (written + 1).min(PAGES)].contains(&pages),
                "{pages} pages told of, {written} written"
            );
            assert_eq!(vmm.written(), written, "a paused vCPU does not write");
            limiter.resume(0);
            eventually("another page", || vmm.written() > written)
        };
        let tested = test();
        limiter.stop();
        thread.join().expect("no panic")?;
        tested
    })
}

fn a_vcpu_that_comes_back_is_limited_again() -> Result<(), Failed> {
    let vmm = Vmm::new()?;
    let limiter = vmm.limiter(LimiterKind::Budget, None)?;
    limiter.limit().set(Which::All, Quota::new(1.0)?)?;
    let mut fd = vmm.create_vcpu(0)?;
    for round in 1..=2 {
        let (first, slept) = (fd, limiter.stats(0).slept);
        // Its thread takes the vCPU in, and lets it go while the limiter works on.
        thread::scope(|scope| -> Result<(), Failed> {
            let (send, quit) = mpsc::channel::<()>();
            let limiter = &limiter;
            let thread = scope.spawn(move || -> Result<(), Failed> {
                let mut vcpu = limiter.vcpu(0, first, None)?;
                while quit.try_recv().is_err() {
                    vcpu.run()?;
                }
                Ok(())
            });
            let paused = eventually("a pause", || limiter.stats(0).slept > slept);
            send.send(()).expect("it still listens");
            thread.join().expect("no panic")?;
            paused
        })?;
        assert_eq!(limiter.phase(0), Phase::Ended, "round {round}");
        fd = vmm.create_vcpu(round)?;
    }
    Ok(())
}

fn what_cannot_be_taken_in_is_refused() -> Result<(), Failed> {
    let vmm = Vmm::new()?;
    let limiter = vmm.limiter(LimiterKind::Budget, None)?;
    let refused = limiter.vcpu(1, vmm.create_vcpu(1)?, None).err();
    assert!(
        matches!(refused, Some(Error::NoSuchVcpu { vcpu: 1, max: 1 })),
        "{refused:?}"
    );
    let _first = limiter.vcpu(0, vmm.create_vcpu(0)?, None)?;
    let refused = limiter.vcpu(0, vmm.create_vcpu(2)?, None).err();
    assert!(matches!(refused, Some(Error::HasThread { vcpu: 0 })), "{refused:?}");

    let exact = vmm.limiter(LimiterKind::BudgetEbpf, None)?;
    let refused = exact.vcpu(0, vmm.create_vcpu(3)?, None).err();
    assert!(matches!(refused, Some(Error::NoPageCounter { .. })), "{refused:?}");

    // The process, or a library in it, ignores a signal, which is to say that it is taken.
    let taken = KickSignal::real_time(20)?;
    ignore(taken)?;
    let mut spec = VmSpec::new(vmm.ring, 1, LimiterSpec::new(LimiterKind::None));
    spec.signal = taken;
    let refused = VmLimiter::new(Arc::clone(&vmm.vm), spec).err();
    assert!(matches!(refused, Some(Error::SignalTaken { .. })), "{refused:?}");
    Ok(())
}

fn ignore(signal: KickSignal) -> Result<(), Failed> {
    // SAFETY: it installs no handler.
    let before = unsafe { libc::signal(signal.number(), libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
