//! A whole VM under one limiter: memory, rings, vCPU threads and commands, put together and taken apart.
//!
//! It is built on [`dirtyrig_limiter::attach`], as any other VMM would be.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod error;
pub mod memory;
#[cfg(feature = "page-counter")]
mod page_counter;
mod vcpu;
mod vcpu_thread;
mod vm;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use dirtyrig_guests::image::Entry;
use dirtyrig_limiter::{
    DirtySink, LimiterSpec, PageCounter, Phase,
    attach::{VmLimiter, VmSpec},
    costs::RingCosts,
    dirty_limit::DirtyLimit,
    stats::{Stall, VcpuStats},
    units::Pages,
};
use dirtyrig_ring::RingSize;

pub use error::Error;
#[cfg(feature = "page-counter")]
pub use page_counter::page_counters;
pub use vcpu::start_in_long_mode;

use memory::{GuestMemory, HugePages, Region};
use vm::Vm;

/// A machine to be.
pub struct MachineSpec {
    /// Entries of each vCPU's dirty ring.
    pub ring: RingSize,
    /// Its memory, low addresses first.
    pub regions: Vec<Region>,
    /// What may back it.
    pub huge: HugePages,
    /// Where each vCPU starts; as many as the machine can ever have.
    pub entries: Vec<Entry>,
    /// How it is limited.
    pub limiter: LimiterSpec,
    /// Where dirty pages go; with none they are only counted.
    pub sink: Option<Box<dyn DirtySink>>,
    /// One per vCPU for a limiter that stops it on the exact page; else none at all.
    pub page_counters: Vec<Box<dyn PageCounter>>,
}

/// The first error that a vCPU's thread ended with. Those that follow are its consequences.
type Failure = Arc<Mutex<Option<Error>>>;

/// A VM whose vCPUs can be limited. All vCPUs exist from the start, unplugged: [`plug`](Machine::plug) lets one run.
pub struct Machine {
    limiter: Arc<VmLimiter>,
    failure: Failure,
    tsc_hz: u64,
    threads: Vec<JoinHandle<()>>,
    // Last: vCPUs and rings live in it.
    vm: Vm,
}

impl Machine {
    /// Creates the VM, populates its memory and starts a thread for each vCPU, which waits to be plugged.
    ///
    /// # Errors
    /// If KVM, memory or the dirty rings can't be had, or the signal that kicks vCPUs is taken.
    ///
    /// # Panics
    /// If the system has no room for a thread per vCPU.
    pub fn new(spec: MachineSpec) -> Result<Self, Error> {
        let memory = Arc::new(GuestMemory::populated(&spec.regions, spec.huge)?);
        let vm = Vm::new(memory, spec.ring)?;
        let mut vcpus = Vec::with_capacity(spec.entries.len());
        let mut tsc_hz = 0;
        for (index, entry) in spec.entries.iter().enumerate() {
            let fd = vm.create_vcpu(index)?;
            start_in_long_mode(&fd, *entry)?;
            let khz = fd.get_tsc_khz().map_err(Error::ioctl("KVM_GET_TSC_KHZ"))?;
            tsc_hz = u64::from(khz) * 1000;
            vcpus.push(fd);
        }
        let mut vm_spec = VmSpec::new(spec.ring, vcpus.len(), spec.limiter);
        vm_spec.sink = spec.sink;
        let limiter = Arc::new(VmLimiter::new(vm.fd(), vm_spec)?);
        let failure = Failure::default();
        let mut counters = spec.page_counters.into_iter();
        let threads = vcpus.into_iter().enumerate().map(|(index, fd)| {
            limiter.order_pause(index);
            let (limiter, failure, counter) = (Arc::clone(&limiter), Arc::clone(&failure), counters.next());
            // The guest runs in it, as long as the thread does.
            let memory = Arc::clone(vm.memory());
            let work = move || {
                let _memory = memory;
                if let Err(error) = vcpu_thread::run(&limiter, index, fd, counter) {
                    lock(&failure).get_or_insert(error);
                }
            };
            thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(work)
                .expect("the system has room for one more thread")
        });
        let threads = threads.collect();
        Ok(Self {
            limiter,
            failure,
            tsc_hz,
            threads,
            vm,
        })
    }

    /// Lets a vCPU run, from its entry or from where it was unplugged. An index beyond the maximum does nothing.
    pub fn plug(&self, vcpu: usize) {
        self.limiter.resume(vcpu);
    }

    /// Takes a vCPU out of the guest and waits until it is out; its limit stays.
    pub fn unplug(&self, vcpu: usize) {
        self.limiter.pause(vcpu);
        self.limiter.unplugged(vcpu);
    }

    /// What a vCPU is doing.
    pub fn phase(&self, vcpu: usize) -> Phase {
        self.limiter.phase(vcpu)
    }

    /// The commands.
    pub fn limit(&self) -> &DirtyLimit {
        self.limiter.limit()
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        self.vm.memory()
    }

    /// Ticks of the guest's time-stamp counter per second.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// How many vCPUs it can have.
    pub fn max_vcpus(&self) -> usize {
        self.limiter.max_vcpus()
    }

    /// Time since the machine was made; the clock of its statistics and stalls.
    pub fn now(&self) -> Duration {
        self.limiter.now()
    }

    /// What a vCPU has done.
    pub fn stats(&self, vcpu: usize) -> VcpuStats {
        self.limiter.stats(vcpu)
    }

    /// Pages harvested from a vCPU's ring.
    pub fn harvested(&self, vcpu: usize) -> Pages {
        self.limiter.harvested(vcpu)
    }

    /// What harvests and resets have cost, all vCPUs together.
    pub fn ring_costs(&self) -> RingCosts {
        self.limiter.ring_costs()
    }

    /// Pages harvested from a vCPU's ring whose entries are held back from reset. They can be written without being logged
    /// again: count them as dirty.
    pub fn held(&self, vcpu: usize) -> Pages {
        self.limiter.held(vcpu)
    }

    /// CPU time that the threads beside the vCPUs have spent: reaper and governor.
    pub fn helpers_cpu(&self) -> Duration {
        self.limiter.helpers_cpu()
    }

    /// The sleep that a vCPU takes now after a ring-full exit.
    pub fn throttle(&self, vcpu: usize) -> Duration {
        self.limiter.throttle(vcpu)
    }

    /// The stalls of a vCPU since the last call.
    pub fn take_stalls(&self, vcpu: usize) -> Vec<Stall> {
        self.limiter.take_stalls(vcpu)
    }

    /// Makes every vCPU leave the guest once, and reaps all rings: what was dirtied before is counted after.
    ///
    /// # Errors
    /// If the rings can't be reset.
    pub fn flush(&self) -> Result<Pages, Error> {
        Ok(self.limiter.flush()?)
    }

    /// Gives back every entry that an enforcement holds, so that each page dirtied so far has gone to the sink and is
    /// write-protected again. The vCPUs are unplugged.
    ///
    /// # Errors
    /// If the rings can't be reset.
    pub fn release_held(&self) -> Result<(), Error> {
        Ok(self.limiter.release_held()?)
    }

    /// The first error that a thread ended with, if one did; taken once.
    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.failure)
            .take()
            .or_else(|| self.limiter.take_failure().map(Error::from))
    }

    /// Ends every thread and the VM.
    ///
    /// # Errors
    /// The one that a thread ended with.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down();
        self.take_failure().map_or(Ok(()), Err)
    }

    fn shut_down(&mut self) {
        self.limiter.stop();
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn lock(failure: &Failure) -> std::sync::MutexGuard<'_, Option<Error>> {
    // An option is never half-written, so a panic elsewhere takes nothing from it.
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}
