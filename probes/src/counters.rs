//! What each vCPU has done since the probes were attached.

use std::time::Duration;

use crate::{
    ExitReason, StallHistogram,
    identity::{Number, VcpuId},
};

/// One vCPU thread's counts. They only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuCounters {
    /// When they were read: pages and time in `KVM_RUN` are those until then.
    pub at: Duration,
    /// The process.
    pub process: u32,
    /// The thread.
    pub thread: u32,
    /// Which vCPU it runs; `None` until anything says so.
    pub vcpu: Option<VcpuId>,
    /// The number by which that is shown, which is of one kind for all vCPUs of a process.
    pub number: Option<Number>,
    /// Whether the thread has ended: its counts are final.
    pub gone: bool,
    /// Pages that it dirtied: entries pushed to its ring, or pages newly marked in the bitmap of a VM without rings.
    pub pushed_pages: u64,
    /// Whether they can be seen here. If not, `pushed_pages` says nothing.
    pub sees_pages: bool,
    /// Entries of its ring that were reset, by whatever thread. Those that were in the ring when it was first seen
    /// count too, so it can exceed `pushed_pages` by as many.
    pub reset_entries: u64,
    /// Reset calls that found its ring.
    pub resets: u64,
    /// Returns of `KVM_RUN`, whatever the reason.
    pub userspace_exits: u64,
    /// Those for a full ring.
    pub ring_full_exits: u64,
    /// `KVM_RUN` system calls.
    pub runs: u64,
    /// Entries into the guest, by `kvm_entry`.
    pub entries: u64,
    /// Exits from the guest, by `kvm_exit`.
    pub exits: u64,
    /// Time in `KVM_RUN`, the call that is going on included.
    pub in_run: Duration,
    /// When the stall began that it is in.
    pub stalled_since: Option<Duration>,
    /// Stalls after a ring-full exit.
    pub ring_full: StallCounters,
    /// Stalls after an interrupted `KVM_RUN`.
    pub interrupted: StallCounters,
    /// Exits by reason, most frequent first: returns of `KVM_RUN`, and the hardware's where the kernel reports them.
    pub exit_reasons: Vec<ExitCount>,
}

/// Finished stalls of one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallCounters {
    /// How many.
    pub count: u64,
    /// Their length in all.
    pub total: Duration,
    /// Their lengths.
    pub lengths: StallHistogram,
}

/// Exits for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitCount {
    /// The reason.
    pub reason: ExitReason,
    /// Its name: `KVM_EXIT_*`, `EINTR`, or what this kernel calls a hardware exit.
    pub name: String,
    /// How many.
    pub count: u64,
}
