//! What VM a cell asks for.

use std::path::PathBuf;

use dirtyrig_guests::Program;
use dirtyrig_limiter::{LimiterSpec, units::Pages};
use dirtyrig_ring::RingSize;

use super::vmm::Vmm;

/// A VM to be built: its ring, its vCPUs, what they execute, and the limiter they run under.
#[derive(Clone, Debug, PartialEq)]
pub struct VmSpec {
    /// Entries of each vCPU's dirty ring.
    pub ring: RingSize,
    /// How many vCPUs it can have.
    pub vcpus: usize,
    /// How many of them are plugged from the start: those of the lowest indices.
    pub plugged: usize,
    /// What each vCPU executes: `vcpus` programs.
    pub programs: Vec<Program>,
    /// Guest memory in MiB, shared out evenly between the vCPUs.
    pub memory_mib: u64,
    /// Whether transparent huge pages back the guest's memory.
    pub thp: bool,
    /// What limits the vCPUs, and how often it measures.
    pub limiter: LimiterSpec,
    /// Seeds the guests' random page choices.
    pub seed: u64,
    /// The trace that `replay` programs follow.
    pub replay: Option<PathBuf>,
    /// Which VMM it lives in.
    pub vmm: Vmm,
}

/// Lowest rate in MiB/s that a limiter which only acts on a full ring can hold: ring bytes / period.
pub fn predicted_floor_mib_s(ring: RingSize, period: std::time::Duration) -> f64 {
    Pages(ring.entries().into()).to_mib() / period.as_secs_f64()
}
