//! The limiter for a VM that another VMM creates and runs: it keeps its own `KVM_RUN` loop.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use dirtyrig_limiter::{attach::{Ran, VmLimiter}, kvm::caps::RingSize, law::LimiterKind, limit::Which, machine::LimiterSpec, units::Quota};
//! # fn vmm(kvm: &kvm_ioctls::Kvm, vm: Arc<kvm_ioctls::VmFd>) -> Result<(), Box<dyn std::error::Error>> {
//! let ring = RingSize::new(65536)?;
//! dirtyrig_limiter::kvm::vm::enable_ring(kvm, &vm, ring)?; // before any vCPU; memory slots with KVM_MEM_LOG_DIRTY_PAGES
//! let spec = LimiterSpec { kind: LimiterKind::Budget, period: Duration::from_secs(1), max_stall: Duration::from_millis(5) };
//! let limiter = VmLimiter::new(Arc::clone(&vm), ring, 1, spec, None)?;
//! let mut fd = vm.create_vcpu(0)?;
//! // On the vCPU's thread:
//! let mut vcpu = limiter.vcpu(0, &fd, None)?;
//! limiter.limit().set(Which::All, Quota::new(25.0)?)?; // from any thread, at any time
//! loop {
//!     match vcpu.run(&mut fd)? {
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
//! resets. A vCPU's thread gets [`KICK`](crate::kvm::kick::KICK), whose handler the limiter installs for the process; a
//! VMM that uses this signal itself has `KVM_RUN` interrupted by both, and hears of either as [`Ran::Again`].

use std::{marker::PhantomData, sync::Arc};

use kvm_bindings::KVM_EXIT_DIRTY_RING_FULL;
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use crate::{
    clock::Clock,
    control::Order,
    dirty_limit::DirtyLimit,
    enforce::{self, page_budget::PageCounter},
    kvm::{
        Error,
        caps::RingSize,
        kick::{self, Kickable},
        ring::DirtyRing,
        vcpu::Exit,
    },
    machine::LimiterSpec,
    reaper::Reaper,
    rings::{DirtySink, Rings},
    shared::Shared,
    stats::VcpuStats,
    turns::Turns,
    units::Pages,
};

/// The limiter of one VM. Threads of its own end when it is dropped.
pub struct VmLimiter {
    shared: Arc<Shared>,
    limit: DirtyLimit,
    spec: LimiterSpec,
    ring: RingSize,
    _reaper: Reaper,
}

impl VmLimiter {
    /// For `vm`, whose vCPUs, at most `max_vcpus`, were given rings of the size `ring`. Pages go to `sink`; with none they
    /// are only counted.
    pub fn new(
        vm: Arc<VmFd>,
        ring: RingSize,
        max_vcpus: usize,
        spec: LimiterSpec,
        sink: Option<Box<dyn DirtySink>>,
    ) -> Result<Self, Error> {
        kick::install_handler()?;
        let rings = Rings::new(vm, max_vcpus, sink);
        let shared = Arc::new(Shared::new(Clock::start(), rings, max_vcpus, spec));
        let limit = DirtyLimit::new(Arc::clone(&shared), spec.kind, ring.entries(), spec.period);
        let reaper = Reaper::start(Arc::clone(&shared), spec.period, enforce::reaper_beside(spec));
        Ok(Self {
            shared,
            limit,
            spec,
            ring,
            _reaper: reaper,
        })
    }

    /// Takes vCPU `index` in, whose descriptor is `fd`. Called on the thread that will run it, once; `counter` counts its
    /// pages for a limiter that stops it on the exact one.
    ///
    /// # Panics
    /// If `index` is not below the number of vCPUs that there may be.
    pub fn vcpu(&self, index: usize, fd: &VcpuFd, counter: Option<Box<dyn PageCounter>>) -> Result<LimitedVcpu, Error> {
        self.shared.rings.insert(index, DirtyRing::map(fd, self.ring)?);
        let enforcement = enforce::build(self.spec, &self.shared, index, self.ring.entries(), counter)?;
        Ok(LimitedVcpu {
            turns: Turns::new(index, Arc::clone(&self.shared), enforcement),
            _not_send: PhantomData,
        })
    }

    /// The commands.
    pub fn limit(&self) -> &DirtyLimit {
        &self.limit
    }

    /// Pages harvested from a vCPU's ring.
    pub fn harvested(&self, vcpu: usize) -> Pages {
        self.shared.rings.harvested(vcpu)
    }

    /// Pages harvested whose entries are held back from reset: count them as dirty.
    pub fn held(&self, vcpu: usize) -> Pages {
        self.shared.rings.held(vcpu)
    }

    /// What a vCPU has done.
    pub fn stats(&self, vcpu: usize) -> VcpuStats {
        self.shared.vcpus[vcpu].books.at(self.shared.clock.now())
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
pub enum Ran<'fd> {
    /// The guest needs the VMM.
    Exit(VcpuExit<'fd>),
    /// Nothing for the VMM to do but what it wants to: the ring was full, a deadline or another signal came.
    Again,
    /// The limiter was stopped: the guest was not entered.
    Stopped,
}

/// One vCPU under the limiter, on the thread that runs it.
pub struct LimitedVcpu {
    turns: Turns,
    // Its timer and its kicks are tied to the thread.
    _not_send: PhantomData<*mut ()>,
}

impl LimitedVcpu {
    /// Sleeps what is due and runs the guest once, in place of [`VcpuFd::run`]. `fd` is the descriptor that it was made with.
    pub fn run<'fd>(&mut self, fd: &'fd mut VcpuFd) -> Result<Ran<'fd>, Error> {
        // A request is made before its kick: whatever came before the flag is cleared is seen in `enter`, and whatever
        // comes after it makes `KVM_RUN` return at once.
        let kickable = Kickable::new(&raw mut fd.get_kvm_run().immediate_exit);
        fd.set_kvm_immediate_exit(0);
        if !self.turns.enter()? {
            return Ok(Ran::Stopped);
        }
        let ran = fd.run();
        drop(kickable);
        let (exit, ran) = match ran {
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => (Exit::RingFull, Ran::Again),
            Ok(other) => (Exit::Interrupted, Ran::Exit(other)),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => (Exit::Interrupted, Ran::Again),
            Err(source) => {
                return Err(Error::Ioctl {
                    operation: "KVM_RUN",
                    source,
                });
            }
        };
        self.turns.leave(exit)?;
        Ok(ran)
    }
}
