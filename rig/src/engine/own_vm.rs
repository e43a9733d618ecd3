//! The rig's own VM as a target: our guests in a machine of the limiter's.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use dirtyrig_guests::{
    PAGE_SIZE, Region as Pattern, VcpuBlock,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_limiter::costs::RingCosts;
use dirtyrig_machine::{
    Machine, MachineSpec,
    memory::{HugePages, Region},
};

use super::{
    limits::Limits,
    page_counter,
    replay_tables::{self, ReplayTables},
    target::{Target, VcpuSnapshot},
};
use crate::{model::Stall, scenario::spec::VmSpec};

/// A machine whose vCPUs execute the rig's programs, each on its share of the memory.
pub struct OwnVm {
    machine: Arc<Machine>,
    plugged: Vec<bool>,
}

impl OwnVm {
    /// Builds the VM of `spec` and plugs its first vCPUs, unlimited.
    pub fn build(spec: &VmSpec) -> anyhow::Result<Self> {
        let pages_each = (spec.memory_mib << 20) / PAGE_SIZE / spec.vcpus as u64;
        let data = Region {
            gpa: REGION_BASE,
            bytes: pages_each * spec.vcpus as u64 * PAGE_SIZE,
            logged: true,
        };
        let replay = spec.replay.as_deref().map(|path| ReplayTables::plan(path, data));
        let replay = replay.transpose()?;
        let tables = replay.as_ref().map(ReplayTables::region);
        let end = tables.map_or(data.gpa + data.bytes, |region| region.gpa + region.bytes);
        let low = LowMemory::build(&spec.programs, end).context("can't lay out the guest")?;
        let low_region = Region {
            gpa: 0,
            bytes: low.bytes.len() as u64,
            logged: false,
        };
        let machine = Machine::new(MachineSpec {
            ring: spec.ring,
            regions: [low_region, data].into_iter().chain(tables).collect(),
            huge: if spec.thp {
                HugePages::Transparent
            } else {
                HugePages::Never
            },
            entries: low.entries.clone(),
            limiter: spec.limiter,
            sink: None,
            page_counters: page_counter::for_limiter(spec.limiter.kind, spec.vcpus)?,
        })?;
        machine.memory().write(0, &low.bytes)?;
        let placed = replay
            .as_ref()
            .map(|replay| replay.write(machine.memory(), machine.tsc_hz()));
        let placed = placed.transpose()?.unwrap_or_default();
        let vm = Self {
            machine: Arc::new(machine),
            plugged: (0..spec.vcpus).map(|vcpu| vcpu < spec.plugged).collect(),
        };
        for (vcpu, program) in spec.programs.iter().enumerate() {
            let pattern = match &replay {
                Some(replay) => replay.give(placed[vcpu], vm.block(vcpu)?),
                None => Pattern {
                    gpa: REGION_BASE + vcpu as u64 * pages_each * PAGE_SIZE,
                    pages: pages_each,
                },
            };
            program.configure(
                vm.block(vcpu)?,
                pattern,
                spec.seed.wrapping_add(vcpu as u64),
                vm.machine.tsc_hz(),
            );
            if replay.is_some() {
                vm.block(vcpu)?
                    .catch_up_ticks
                    .store(replay_tables::catch_up_ticks(vm.machine.tsc_hz()), Ordering::Relaxed);
            }
        }
        for vcpu in 0..spec.plugged {
            vm.machine.plug(vcpu);
        }
        Ok(vm)
    }

    /// The machine itself, for those who command it from other threads while it lives.
    pub fn machine(&self) -> Weak<Machine> {
        Arc::downgrade(&self.machine)
    }

    fn block(&self, vcpu: usize) -> anyhow::Result<&VcpuBlock> {
        Ok(self.machine.memory().block(LowMemory::block_gpa(vcpu))?)
    }

    fn check_index(&self, vcpu: usize) -> anyhow::Result<()> {
        let max = self.max_vcpus();
        anyhow::ensure!(
            vcpu < max,
            "vCPU {vcpu} can't be plugged: this machine has room for {max} (`--vcpus`)"
        );
        Ok(())
    }
}

impl Target for OwnVm {
    fn vmm(&self) -> &'static str {
        "rig"
    }

    fn now(&self) -> Duration {
        self.machine.now()
    }

    fn max_vcpus(&self) -> usize {
        self.machine.max_vcpus()
    }

    fn snapshot(&mut self) -> anyhow::Result<Vec<VcpuSnapshot>> {
        if let Some(error) = self.machine.take_failure() {
            return Err(error.into());
        }
        let plugged = self.plugged.iter().filter(|&&plugged| plugged).count().max(1) as u32;
        let beside = self.machine.helpers_cpu() / plugged;
        (0..self.max_vcpus())
            .map(|vcpu| {
                let block = self.block(vcpu)?;
                let stats = self.machine.stats(vcpu);
                let throttle = self.machine.throttle(vcpu);
                Ok(VcpuSnapshot {
                    absent: false,
                    plugged: self.plugged[vcpu],
                    // Relaxed: the counts alone are looked at, not the pages behind them.
                    written_pages: Some(block.pages_written.load(Ordering::Relaxed)),
                    read_pages: Some(block.pages_read.load(Ordering::Relaxed)),
                    harvested_pages: Some(self.machine.harvested(vcpu).0),
                    ring_full_exits: Some(stats.ring_full_exits),
                    exits: Some(stats.exits),
                    in_guest: Some(stats.in_guest),
                    asked: Some(stats.asked),
                    slept: Some(stats.slept),
                    throttle: Some(if throttle.is_zero() { stats.last_asked } else { throttle }),
                    held_pages: Some(self.machine.held(vcpu).0),
                    cost: Some(stats.outside_cpu + beside),
                })
            })
            .collect()
    }

    fn take_stalls(&mut self) -> Vec<Stall> {
        let stalls = |vcpu| {
            self.machine.take_stalls(vcpu).into_iter().map(move |stall| Stall {
                vcpu,
                at: stall.at,
                length: stall.length,
                asked: stall.asked,
                slept: stall.slept,
            })
        };
        (0..self.max_vcpus()).flat_map(stalls).collect()
    }

    fn ring_costs(&self) -> Option<RingCosts> {
        Some(self.machine.ring_costs())
    }

    fn limits(&self) -> Box<dyn Limits + '_> {
        Box::new(self.machine.limit())
    }

    fn plug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        self.check_index(vcpu)?;
        self.machine.plug(vcpu);
        self.plugged[vcpu] = true;
        Ok(())
    }

    fn unplug(&mut self, vcpu: usize) -> anyhow::Result<()> {
        self.check_index(vcpu)?;
        self.machine.unplug(vcpu);
        self.plugged[vcpu] = false;
        Ok(())
    }

    fn probed_pid(&self) -> Option<u32> {
        Some(std::process::id())
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        let machine = Arc::into_inner(self.machine).context("the guest can't be ended while a command still runs")?;
        Ok(machine.stop()?)
    }
}
