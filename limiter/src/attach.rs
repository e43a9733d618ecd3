//! The way in for a VMM that creates and runs its own vCPUs: it keeps its own `KVM_RUN` loop.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! use dirtyrig_limiter::{LimiterSpec, attach::{Ran, VmLimiter, VmSpec}, law::LimiterKind, limit::Which, units::Quota};
//! use dirtyrig_ring::RingSize;
//!
//! # fn vmm(kvm: &kvm_ioctls::Kvm, vm: Arc<kvm_ioctls::VmFd>) -> Result<(), Box<dyn std::error::Error>> {
//! let ring = RingSize::new(65536)?;
//! dirtyrig_ring::enable(kvm, &vm, ring)?; // before any vCPU; memory slots with KVM_MEM_LOG_DIRTY_PAGES
//! let spec = VmSpec::new(ring, 1, LimiterSpec::new(LimiterKind::Budget));
//! let limiter = VmLimiter::new(Arc::clone(&vm), spec)?;
//! // On the vCPU's thread:
//! let mut vcpu = limiter.vcpu(0, vm.create_vcpu(0)?, None)?;
//! limiter.limit().set(Which::All, Quota::new(25.0)?)?; // from any thread, at any time
//! loop {
//!     match vcpu.run()? {
//!         Ran::Exit(exit) => println!("for the VMM to handle: {exit:?}"),
//!         Ran::Again => {} // the ring was full, a pause was due, or a signal came
//!         Ran::Stopped => break, // `limiter.stop()`
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Dirty pages go to the [`DirtySink`] that the VMM gives. The rings belong to the limiter: nobody else harvests or
//! resets. A vCPU's thread gets a [`KickSignal`], whose handler the limiter installs for the process. Signals of the VMM's
//! own interrupt `KVM_RUN` as ever, and it hears of either as [`Ran::Again`].
//!
//! Before the last pass of a migration the VMM takes its vCPUs out by [`VmLimiter::pause`], calls
//! [`VmLimiter::release_held`], and has been told of every page.

use std::{io, marker::PhantomData, sync::Arc, time::Duration};

use dirtyrig_ring::{DirtyRing, RingSize};
use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use crate::{
    Error, KickSignal, LimiterSpec, Phase,
    clock::Clock,
    control::Order,
    costs::RingCosts,
    dirty_limit::DirtyLimit,
    enforce::{self, page_budget::PageCounter},
    exit::Exit,
    kvm::kick::Kickable,
    reaper::Reaper,
    rings::{DirtySink, Rings, Whose},
    shared::Shared,
    stats::{Stall, VcpuStats},
    turns::Turns,
    units::Pages,
};

/// A VM that is to be limited.
#[non_exhaustive]
pub struct VmSpec {
    /// The size of its dirty rings.
    pub ring: RingSize,
    /// How many vCPUs it can have.
    pub max_vcpus: usize,
    /// How it is limited.
    pub limiter: LimiterSpec,
    /// Where dirty pages go; with none they are only counted.
    pub sink: Option<Box<dyn DirtySink>>,
    /// What makes its vCPUs leave the guest.
    pub signal: KickSignal,
}

impl VmSpec {
    /// A VM of at most `max_vcpus` vCPUs whose pages are only counted, kicked by the default signal.
    pub fn new(ring: RingSize, max_vcpus: usize, limiter: LimiterSpec) -> Self {
        Self {
            ring,
            max_vcpus,
            limiter,
            sink: None,
            signal: KickSignal::default(),
        }
    }
}

/// The limiter of one VM. Threads of its own end when it is dropped.
pub struct VmLimiter {
    shared: Arc<Shared>,
    limit: DirtyLimit,
    spec: LimiterSpec,
    ring: RingSize,
    _reaper: Reaper,
}

impl VmLimiter {
    /// For `vm`, whose vCPUs were given rings as `spec` says.
    ///
    /// # Errors
    /// [`Error::SignalTaken`] if the process has another handler for the signal.
    pub fn new(vm: Arc<VmFd>, spec: VmSpec) -> Result<Self, Error> {
        let VmSpec {
            ring,
            max_vcpus,
            limiter,
            sink,
            signal,
        } = spec;
        signal.install()?;
        let rings = Rings::new(vm, max_vcpus, sink);
        let shared = Arc::new(Shared::new(Clock::start(), rings, signal, max_vcpus, limiter));
        let limit = DirtyLimit::new(Arc::clone(&shared), limiter.kind, ring.entries(), limiter.period);
        let reaper = Reaper::start(
            Arc::clone(&shared),
            limiter.period,
            limiter.kind.descriptor().policy.reaper_beside,
        );
        Ok(Self {
            shared,
            limit,
            spec: limiter,
            ring,
            _reaper: reaper,
        })
    }

    /// Takes in vCPU `index`, whose descriptor is `fd`. Called on the thread that will run it; `counter` counts its pages
    /// for a limiter that stops it on the exact one.
    ///
    /// # Errors
    /// [`Error::NoSuchVcpu`] or [`Error::HasThread`] for an index that can't be taken in, [`Error::NoPageCounter`] if the
    /// limiter needs a counter, [`Error::Ring`] if the vCPU's ring can't be mapped.
    pub fn vcpu(&self, index: usize, fd: VcpuFd, counter: Option<Box<dyn PageCounter>>) -> Result<LimitedVcpu, Error> {
        let max = self.max_vcpus();
        if index >= max {
            return Err(Error::NoSuchVcpu { vcpu: index, max });
        }
        let ring = DirtyRing::map(&fd, self.ring)?;
        let enforcement = enforce::build(self.spec, &self.shared, index, self.ring.entries(), counter)?;
        let turns = Turns::new(index, Arc::clone(&self.shared), enforcement)?;
        self.shared.rings.insert(index, ring);
        Ok(LimitedVcpu {
            turns,
            fd,
            index,
            _not_send: PhantomData,
        })
    }

    /// The commands.
    pub fn limit(&self) -> &DirtyLimit {
        &self.limit
    }

    /// How many vCPUs it has room for.
    pub fn max_vcpus(&self) -> usize {
        self.shared.vcpus.len()
    }

    /// Time since it was made; the clock of its statistics and stalls.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    /// Pages harvested from a vCPU's ring.
    ///
    /// # Panics
    /// This one, and every other query of a single vCPU, if there is no room for such a vCPU.
    pub fn harvested(&self, vcpu: usize) -> Pages {
        self.shared.rings.harvested(vcpu)
    }

    /// Pages harvested whose entries are held back from reset. They can be written without being logged again: count them
    /// as dirty, or have them [released](Self::release_held).
    pub fn held(&self, vcpu: usize) -> Pages {
        self.shared.rings.held(vcpu)
    }

    /// What a vCPU has done.
    pub fn stats(&self, vcpu: usize) -> VcpuStats {
        self.shared.vcpus[vcpu].books.at(self.now())
    }

    /// The stalls of a vCPU since the last call.
    pub fn take_stalls(&self, vcpu: usize) -> Vec<Stall> {
        self.shared.vcpus[vcpu].books.take_stalls()
    }

    /// The sleep that a vCPU takes now after a ring-full exit.
    pub fn throttle(&self, vcpu: usize) -> Duration {
        self.shared.limits.throttle(vcpu).into()
    }

    /// What a vCPU is doing.
    pub fn phase(&self, vcpu: usize) -> Phase {
        self.shared.vcpus[vcpu].control.phase()
    }

    /// What harvests and resets have cost, all vCPUs together.
    pub fn ring_costs(&self) -> RingCosts {
        self.shared.rings.costs()
    }

    /// CPU time that the limiter's own threads have spent.
    pub fn helpers_cpu(&self) -> Duration {
        self.shared.helpers_cpu()
    }

    /// Makes every vCPU leave the guest once, and reaps all rings: what was dirtied before is counted after. Waits for
    /// vCPUs that are between two calls of [`LimitedVcpu::run`], unless they are [paused](Self::pause).
    ///
    /// # Errors
    /// [`Error::Ring`] if the rings can't be reset.
    pub fn flush(&self) -> Result<Pages, Error> {
        for vcpu in &self.shared.vcpus {
            vcpu.control.sync();
        }
        self.shared.rings.reap(Whose::All)
    }

    /// Releases every entry that an enforcement holds back, so that each page dirtied so far has gone to the sink and is
    /// write-protected again: what a VMM needs before it sends the rest. The vCPUs are paused.
    ///
    /// # Errors
    /// [`Error::Ring`] if the rings can't be reset.
    pub fn release_held(&self) -> Result<(), Error> {
        for vcpu in 0..self.max_vcpus() {
            self.shared.rings.set_hold(vcpu, 0)?;
        }
        self.shared.rings.reap(Whose::All).map(drop)
    }

    /// Orders a vCPU out of the guest without waiting: its [`LimitedVcpu::run`] waits until it is [resumed](Self::resume).
    /// One that has no thread yet will begin like this. An index beyond the room does nothing.
    pub fn order_pause(&self, vcpu: usize) {
        self.order(vcpu, Order::Park);
    }

    /// Takes a vCPU out of the guest and waits until it is out.
    pub fn pause(&self, vcpu: usize) {
        self.order_pause(vcpu);
        if let Some(vcpu) = self.shared.vcpus.get(vcpu) {
            vcpu.control
                .wait_for(|phase| matches!(phase, Phase::Parked | Phase::Ended), Duration::MAX);
        }
    }

    /// Lets a paused vCPU run. An index beyond the room does nothing.
    pub fn resume(&self, vcpu: usize) {
        self.order(vcpu, Order::Run);
    }

    /// A vCPU was unplugged: what the law has learnt of it goes, its limit stays for one that is plugged in its place.
    pub fn unplugged(&self, vcpu: usize) {
        self.limit.unplugged(vcpu);
    }

    fn order(&self, vcpu: usize, order: Order) {
        if let Some(vcpu) = self.shared.vcpus.get(vcpu) {
            vcpu.control.order(order);
        }
    }

    /// The first error that a thread of the limiter ended with, if one did; taken once.
    pub fn take_failure(&self) -> Option<Error> {
        self.shared.take_failure()
    }

    /// Makes every vCPU leave the guest; its [`LimitedVcpu::run`] says [`Ran::Stopped`] from now on.
    pub fn stop(&self) {
        for vcpu in &self.shared.vcpus {
            vcpu.control.order(Order::Stop);
        }
    }
}

impl Drop for VmLimiter {
    fn drop(&mut self) {
        self.stop();
        self.limit.end();
    }
}

/// Why [`LimitedVcpu::run`] returned.
#[derive(Debug)]
pub enum Ran<'vcpu> {
    /// The guest needs the VMM.
    Exit(VcpuExit<'vcpu>),
    /// Nothing for the VMM to do but what it wants to: the ring was full, a deadline or another signal came.
    Again,
    /// The limiter was stopped: the guest was not entered.
    Stopped,
}

/// One vCPU under the limiter, on the thread that runs it.
pub struct LimitedVcpu {
    // First: from its end on nobody kicks the thread any more, and fields are dropped in order.
    turns: Turns,
    fd: VcpuFd,
    index: usize,
    // Its timer and its kicks are tied to the thread.
    _not_send: PhantomData<*mut ()>,
}

impl LimitedVcpu {
    /// Sleeps what is due and runs the guest once, in place of [`VcpuFd::run`].
    ///
    /// # Errors
    /// [`Error::Run`] if the kernel refuses to run the guest; [`Error::Ring`], [`Error::RingStuck`], [`Error::Timer`] or
    /// [`Error::PageCounter`] if the limiter can't do its part.
    pub fn run(&mut self) -> Result<Ran<'_>, Error> {
        // A request is made before its kick: whatever came before the flag is cleared is seen in `enter`, and whatever
        // comes after it makes `KVM_RUN` return at once.
        let kickable = Kickable::new(&raw mut self.fd.get_kvm_run().immediate_exit);
        self.fd.set_kvm_immediate_exit(0);
        if !self.turns.enter()? {
            return Ok(Ran::Stopped);
        }
        let ran = self.fd.run();
        drop(kickable);
        let (exit, ran) = match ran {
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => (Exit::RingFull, Ran::Again),
            Ok(other) => (Exit::Other, Ran::Exit(other)),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => (Exit::Other, Ran::Again),
            Err(error) => {
                return Err(Error::Run {
                    vcpu: self.index,
                    source: io::Error::from_raw_os_error(error.errno()),
                });
            }
        };
        self.turns.leave(exit)?;
        Ok(ran)
    }

    /// Its descriptor, for everything but running it.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The page that it shares with KVM: registers of `KVM_SYNC_REGS` and the data of exits.
    pub fn kvm_run(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }
}
