//! What the probes saw of one cell.

use dirtyrig_probes::Sees;

use super::{ExitRow, KernelStall};

/// What the kernel has counted of one vCPU since the probes were attached. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Pages pushed to its ring.
    pub pushed_pages: u64,
    /// Entries of its ring that were reset.
    pub reset_pages: u64,
    /// Returns of `KVM_RUN` because the ring was full.
    pub ring_full_exits: u64,
    /// All returns of `KVM_RUN`.
    pub userspace_exits: u64,
    /// Exits from guest mode, as far as the kernel reports them.
    pub hardware_exits: u64,
}

/// What the probes leave of a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probed {
    /// The counts of each vCPU at 0 and at each sample, by the cell's clock; empty where the probes were not attached.
    pub counts: Vec<(f64, Vec<KernelCounts>)>,
    /// The pauses since 0.
    pub stalls: Vec<KernelStall>,
    /// The exits since 0, by reason.
    pub exits: Vec<ExitRow>,
    /// What of it the kernel shows at all.
    pub sees: Sees,
    /// What could not be recorded since they were attached.
    pub lost: u64,
    /// What must be known to read the figures, in sentences.
    pub notes: Vec<String>,
}
