//! The rows of `samples.csv`. Field names are the column names, and column names are a promise: `results/README.md`
//! documents each, with its formula.

use serde::{Deserialize, Serialize};

/// One vCPU at one instant of one cell: a row of `samples.csv`.
///
/// Counts are cumulative since the cell's start, so that any window can be recomputed from two rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which cell of the recording.
    pub cell: u32,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Seconds since the cell began to be measured (negative while warming up, unlimited).
    pub t_s: f64,
    /// The limit in force, empty for none.
    pub quota_mib_s: Option<f64>,
    /// What the limiter believes: its own last reading. This and all that follows is empty where it is not known.
    pub ring_mib_s: Option<f64>,
    /// The truth: the guest's own counter over the time since the previous sample.
    pub guest_mib_s: Option<f64>,
    /// Pages that the guest only read, as a rate over the time since the previous sample.
    pub guest_read_mib_s: Option<f64>,
    /// The throttle in force: sleep a ring-full exit (QEMU laws) or of the last pause (others).
    pub throttle_us: Option<u64>,
    /// Share of the time since the previous sample that the vCPU spent in `KVM_RUN`.
    pub utilisation_pct: Option<f64>,
    /// Pages written, by the guest's own counter.
    pub written_pages: Option<u64>,
    /// Pages only read, by the guest's own counter.
    pub read_pages: Option<u64>,
    /// Pages harvested from the vCPU's ring; one that is dirtied again after a reset counts again.
    pub harvested_pages: Option<u64>,
    /// Exits because the ring was full.
    pub ring_full_exits: Option<u64>,
    /// All exits from `KVM_RUN` to the VMM, ring-full ones included.
    pub exits: Option<u64>,
    /// Sleep asked for.
    pub asked_us: Option<u64>,
    /// Sleep had.
    pub slept_us: Option<u64>,
    /// The limit of all vCPUs together, empty for none.
    #[serde(default)]
    pub vm_quota_mib_s: Option<f64>,
    /// Harvested pages whose entries are held back from reset: they are dirty, and can be written unlogged.
    #[serde(default)]
    pub held_pages: Option<u64>,
    /// CPU time that limiting and harvesting took: of the vCPU's thread outside `KVM_RUN`, and its part of the threads
    /// beside it.
    #[serde(default)]
    pub cost_us: Option<u64>,
}
