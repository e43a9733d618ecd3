//! A whole VM under one limiter: memory, rings, vCPU threads, reaper and commands, put together and taken apart.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock::Clock,
    control::{Order, Phase},
    costs::RingCosts,
    dirty_limit::DirtyLimit,
    enforce::{self, page_budget::PageCounter},
    kvm::{
        Error, caps,
        caps::RingSize,
        kick,
        memory::{GuestMemory, HugePages, Region},
        vcpu::{Entry, Vcpu},
        vm::Vm,
    },
    law::LimiterKind,
    reaper::Reaper,
    rings::{DirtySink, Rings},
    shared::Shared,
    stats::{Stall, VcpuStats},
    units::Pages,
    vcpu_thread,
};

/// Which limiter, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSpec {
    /// The pair of law and enforcement.
    pub kind: LimiterKind,
    /// How often it measures; QEMU: 1 s.
    pub period: Duration,
    /// The longest pause that a budget may ask for at once.
    pub max_stall: Duration,
}

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
    /// One a vCPU for a limiter that stops it on the exact page; else none at all.
    pub page_counters: Vec<Box<dyn PageCounter>>,
}

/// A VM whose vCPUs can be limited. All vCPUs exist from the start, unplugged: [`plug`](Machine::plug) lets one run.
pub struct Machine {
    shared: Arc<Shared>,
    limit: DirtyLimit,
    tsc_hz: u64,
    reaper: Option<Reaper>,
    threads: Vec<JoinHandle<()>>,
    // Last: vCPUs and rings live in it.
    vm: Vm,
}

impl Machine {
    /// Creates the VM, populates its memory and starts a thread for each vCPU, which waits to be plugged.
    pub fn new(spec: MachineSpec) -> Result<Self, Error> {
        kick::install_handler()?;
        let kvm = caps::open()?;
        let memory = Arc::new(GuestMemory::populated(&spec.regions, spec.huge)?);
        let vm = Vm::new(&kvm, memory, Some(spec.ring))?;
        let max_vcpus = spec.entries.len();
        let rings = Rings::new(vm.fd(), max_vcpus, spec.sink);
        let mut vcpus = Vec::with_capacity(max_vcpus);
        for (index, entry) in spec.entries.iter().enumerate() {
            let vcpu = vm.create_vcpu(index)?;
            vcpu.start_at(*entry)?;
            rings.insert(index, vcpu.map_ring(spec.ring)?);
            vcpus.push(vcpu);
        }
        let tsc_hz = vcpus.first().map_or(Ok(0), Vcpu::tsc_hz)?;
        let shared = Arc::new(Shared::new(Clock::start(), rings, max_vcpus, spec.limiter));
        let limit = DirtyLimit::new(
            Arc::clone(&shared),
            spec.limiter.kind,
            spec.ring.entries(),
            spec.limiter.period,
        );
        let reaper = Reaper::start(
            Arc::clone(&shared),
            spec.limiter.period,
            enforce::reaper_beside(spec.limiter),
        );
        let mut machine = Self {
            shared,
            limit,
            tsc_hz,
            reaper: Some(reaper),
            threads: Vec::new(),
            vm,
        };
        let mut counters = spec.page_counters.into_iter();
        for vcpu in vcpus {
            machine.spawn(vcpu, spec.limiter, spec.ring, counters.next());
        }
        Ok(machine)
    }

    fn spawn(&mut self, vcpu: Vcpu, limiter: LimiterSpec, ring: RingSize, counter: Option<Box<dyn PageCounter>>) {
        let shared = Arc::clone(&self.shared);
        shared.vcpus[vcpu.index()].control.order(Order::Park);
        let work = move || {
            let control = &shared.vcpus[vcpu.index()].control;
            let result = enforce::build(limiter, &shared, vcpu.index(), ring.entries(), counter)
                .and_then(|enforcement| vcpu_thread::run(vcpu, &shared, enforcement));
            if let Err(error) = result {
                shared.fail(error);
            }
            control.ended();
        };
        let name = format!("vcpu{}", self.threads.len());
        let thread = thread::Builder::new()
            .name(name)
            .spawn(work)
            .expect("the system has room for one more thread");
        self.threads.push(thread);
    }

    /// Lets a vCPU run, from its entry or from where it was unplugged. An index beyond the maximum does nothing.
    pub fn plug(&self, vcpu: usize) {
        self.order(vcpu, Order::Run);
    }

    /// Takes a vCPU out of the guest and waits until it is out; its limit stays.
    pub fn unplug(&self, vcpu: usize) {
        self.order(vcpu, Order::Park);
        if let Some(vcpu) = self.shared.vcpus.get(vcpu) {
            vcpu.control
                .wait_for(|phase| matches!(phase, Phase::Parked | Phase::Ended), Duration::MAX);
        }
        self.limit.unplugged(vcpu);
    }

    fn order(&self, vcpu: usize, order: Order) {
        if let Some(vcpu) = self.shared.vcpus.get(vcpu) {
            vcpu.control.order(order);
        }
    }

    /// What a vCPU is doing.
    pub fn phase(&self, vcpu: usize) -> Phase {
        self.shared.vcpus[vcpu].control.phase()
    }

    /// The commands.
    pub fn limit(&self) -> &DirtyLimit {
        &self.limit
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        self.vm.memory()
    }

    /// Ticks of the guest's time-stamp counter in a second.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// How many vCPUs it can have.
    pub fn max_vcpus(&self) -> usize {
        self.shared.vcpus.len()
    }

    /// Time since the machine was made; the clock of its statistics and stalls.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    /// What a vCPU has done.
    pub fn stats(&self, vcpu: usize) -> VcpuStats {
        self.shared.vcpus[vcpu].books.at(self.now())
    }

    /// Pages harvested from a vCPU's ring.
    pub fn harvested(&self, vcpu: usize) -> Pages {
        self.shared.rings.harvested(vcpu)
    }

    /// What harvests and resets have cost, all vCPUs together.
    pub fn ring_costs(&self) -> RingCosts {
        self.shared.rings.costs()
    }

    /// Pages harvested from a vCPU's ring whose entries are held back from reset. They can be written without being logged
    /// again: count them as dirty.
    pub fn held(&self, vcpu: usize) -> Pages {
        self.shared.rings.held(vcpu)
    }

    /// CPU time that the threads beside the vCPUs have spent: reaper and governor.
    pub fn helpers_cpu(&self) -> Duration {
        self.shared.helpers_cpu()
    }

    /// The sleep that a vCPU takes now after a ring-full exit.
    pub fn throttle(&self, vcpu: usize) -> Duration {
        self.shared.limits.throttle(vcpu).into()
    }

    /// The stalls of a vCPU since the last call.
    pub fn take_stalls(&self, vcpu: usize) -> Vec<Stall> {
        self.shared.vcpus[vcpu].books.take_stalls()
    }

    /// Makes every vCPU leave the guest once, and reaps all rings: what was dirtied before is counted after.
    pub fn flush(&self) -> Result<Pages, Error> {
        for vcpu in &self.shared.vcpus {
            vcpu.control.sync();
        }
        self.shared.rings.reap(crate::rings::Whose::All)
    }

    /// Gives back every entry that an enforcement holds, so that each page dirtied so far has gone to the sink and is
    /// write-protected again: what a VMM needs before it sends the rest. The vCPUs are unplugged.
    pub fn release_held(&self) -> Result<(), Error> {
        for vcpu in 0..self.max_vcpus() {
            self.shared.rings.set_hold(vcpu, 0)?;
        }
        self.shared.rings.reap(crate::rings::Whose::All).map(drop)
    }

    /// The first error that a thread ended with, if one did; taken once.
    pub fn take_failure(&self) -> Option<Error> {
        self.shared.take_failure()
    }

    /// Ends every thread and the VM; returns the error that one of them ended with.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down();
        self.take_failure().map_or(Ok(()), Err)
    }

    fn shut_down(&mut self) {
        for vcpu in &self.shared.vcpus {
            vcpu.control.order(Order::Stop);
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
        self.reaper = None;
        self.limit.end();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shut_down();
    }
}
