//! What a VM must offer to be run under a scenario, whichever VMM it lives in.

use std::{collections::HashMap, time::Duration};

use dirtyrig_limiter::costs::RingCosts;

use super::limits::Limits;
use crate::model::Stall;

/// What a vCPU has done since the target started. Counts only grow; `None` is what this VMM does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuSnapshot {
    /// No vCPU has had this index: it has no row.
    pub absent: bool,
    /// Whether the vCPU is plugged.
    pub plugged: bool,
    /// Pages written, by the guest's own counter.
    pub written_pages: Option<u64>,
    /// Pages read, by the guest's own counter.
    pub read_pages: Option<u64>,
    /// Pages harvested from its ring.
    pub harvested_pages: Option<u64>,
    /// Ring-full exits.
    pub ring_full_exits: Option<u64>,
    /// Exits from `KVM_RUN`, whatever the reason.
    pub exits: Option<u64>,
    /// Time spent inside `KVM_RUN`.
    pub in_guest: Option<Duration>,
    /// Sleep asked for.
    pub asked: Option<Duration>,
    /// Sleep had.
    pub slept: Option<Duration>,
    /// The throttle in force.
    pub throttle: Option<Duration>,
    /// Harvested pages whose entries are held back from reset: they are dirty and can be written unlogged.
    pub held_pages: Option<u64>,
    /// CPU time that limiting and harvesting took: of its thread outside the guest, and its part of the threads beside it.
    pub cost: Option<Duration>,
}

impl VcpuSnapshot {
    /// Of an index that no vCPU has had.
    pub const ABSENT: Self = Self {
        absent: true,
        plugged: false,
        written_pages: None,
        read_pages: None,
        harvested_pages: None,
        ring_full_exits: None,
        exits: None,
        in_guest: None,
        asked: None,
        slept: None,
        throttle: None,
        held_pages: None,
        cost: None,
    };
}

/// A running VM whose vCPUs can be limited and measured.
pub trait Target {
    /// Name of the VMM, as recorded: `rig`, `qemu-10.0.2`, ...
    fn vmm(&self) -> &str;
    /// Time since the target started; the clock of every snapshot and stall.
    fn now(&self) -> Duration;
    /// How many vCPUs it can have: each index is below that.
    fn max_vcpus(&self) -> usize;
    /// Whether it runs a guest of ours, whose programs and memory are those of the scenario.
    fn runs_our_guest(&self) -> bool {
        true
    }
    /// Whether the pauses of a vCPU are seen; without that, there being none says nothing.
    fn sees_pauses(&self) -> bool {
        true
    }
    /// One snapshot per index; of an index that no vCPU has had, [`VcpuSnapshot::ABSENT`]. There may be more than before.
    fn snapshot(&mut self) -> anyhow::Result<Vec<VcpuSnapshot>>;
    /// The stalls since the last call.
    fn take_stalls(&mut self) -> Vec<Stall>;
    /// What limits it.
    fn limits(&self) -> Box<dyn Limits + '_>;
    /// Why its limiter failed, where the VM knows more of it.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        error
    }
    /// What emptying the rings has cost so far, all vCPUs together; `None` of a VMM that does not tell.
    fn ring_costs(&self) -> Option<RingCosts> {
        None
    }
    /// Lets a vCPU run.
    fn plug(&mut self, vcpu: usize) -> anyhow::Result<()>;
    /// Stops a vCPU; a limit on it survives.
    fn unplug(&mut self, vcpu: usize) -> anyhow::Result<()>;
    /// The process whose vCPUs the probes can watch; none where there is nothing that the kernel could show.
    fn probed_pid(&self) -> Option<u32> {
        None
    }
    /// The index of the vCPU that each thread of that process runs; `None` where indices are KVM's ids.
    fn indices(&self) -> Option<HashMap<u32, usize>> {
        None
    }
    /// Ends the guest and every thread; an error that a vCPU died of comes out here.
    fn stop(self: Box<Self>) -> anyhow::Result<()>;
}
