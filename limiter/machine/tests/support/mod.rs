//! A machine of the rig's guests, as small as a test needs it.

use std::time::Duration;

use dirtyrig_guests::{
    Program, Region as Pattern, VcpuBlock,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_limiter::{DirtySink, LimiterSpec, law::LimiterKind, units::PAGE_SIZE};
use dirtyrig_machine::{
    Machine, MachineSpec,
    memory::{HugePages, Region},
};
use dirtyrig_ring::RingSize;

/// What a test's machine is made of.
pub(crate) struct Small {
    pub(crate) ring: u32,
    pub(crate) pages_each: u64,
    pub(crate) programs: Vec<Program>,
    pub(crate) limiter: LimiterKind,
    pub(crate) period: Duration,
    pub(crate) burst: Duration,
}

impl Small {
    /// One sequential writer on 64 MiB under `limiter`.
    pub(crate) fn new(ring: u32, limiter: LimiterKind) -> Self {
        Self {
            ring,
            pages_each: 16384,
            programs: vec![Program::Sequential],
            limiter,
            period: Duration::from_millis(500),
            burst: Duration::from_secs(1),
        }
    }

    /// The machine, its programs configured, no vCPU plugged.
    pub(crate) fn build(&self, sink: Option<Box<dyn DirtySink>>) -> Machine {
        let vcpus = self.programs.len() as u64;
        let data = Region {
            gpa: REGION_BASE,
            bytes: vcpus * self.pages_each * PAGE_SIZE,
            logged: true,
        };
        let low = LowMemory::build(&self.programs, data.gpa + data.bytes).expect("a small guest fits");
        let region = Region {
            gpa: 0,
            bytes: low.bytes.len() as u64,
            logged: false,
        };
        let mut limiter = LimiterSpec::new(self.limiter);
        (limiter.period, limiter.burst) = (self.period, self.burst);
        let machine = Machine::new(MachineSpec {
            ring: RingSize::new(self.ring).expect("a valid size"),
            regions: vec![region, data],
            huge: HugePages::Never,
            entries: low.entries.clone(),
            limiter,
            sink,
            page_counters: if self.limiter.needs_page_counter() {
                dirtyrig_machine::page_counters(self.programs.len()).expect("eBPF works here")
            } else {
                Vec::new()
            },
        })
        .expect("KVM works here");
        machine
            .memory()
            .write(0, &low.bytes)
            .expect("low memory is the guest's");
        for (vcpu, program) in self.programs.iter().enumerate() {
            program.configure(
                block(&machine, vcpu),
                self.region(vcpu),
                1 + vcpu as u64,
                machine.tsc_hz(),
            );
        }
        machine
    }

    /// The pages of a vCPU.
    pub(crate) fn region(&self, vcpu: usize) -> Pattern {
        Pattern {
            gpa: REGION_BASE + vcpu as u64 * self.pages_each * PAGE_SIZE,
            pages: self.pages_each,
        }
    }
}

/// The block that a vCPU shares with the host.
pub(crate) fn block(machine: &Machine, vcpu: usize) -> &VcpuBlock {
    machine
        .memory()
        .block(LowMemory::block_gpa(vcpu))
        .expect("blocks are in low memory")
}
