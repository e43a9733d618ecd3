//! The events, decoded from their records.

use std::time::Duration;

use dirtyrig_probes_common::{CAUSE_RING_FULL, END_ENTRY, PushRecord, StallRecord};

use crate::identity::VcpuId;

/// What [`Probes::drain`](crate::Probes::drain) hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A stall ended.
    Stall(Stall),
    /// A page was dirtied (with [`Options::trace_pushes`](crate::Options::trace_pushes)).
    Push(Push),
}

/// Why `KVM_RUN` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StallCause {
    /// The dirty ring was full.
    RingFull,
    /// `EINTR`: a kick, a timer, a spent budget.
    Interrupted,
}

/// What ended a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallEnd {
    /// The thread's next `KVM_RUN` system call.
    Run,
    /// `kvm_entry`: the entry into the guest itself.
    Entry,
}

/// A vCPU that did not run: from the return of `KVM_RUN` to the same thread's next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The process.
    pub process: u32,
    /// The vCPU's thread.
    pub thread: u32,
    /// Which vCPU that is, if it is known yet.
    pub vcpu: Option<VcpuId>,
    /// Why it began.
    pub cause: StallCause,
    /// What ended it.
    pub end: StallEnd,
    /// When `KVM_RUN` returned.
    pub exit_at: Duration,
    /// When the vCPU was back.
    pub end_at: Duration,
}

impl Stall {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.end_at.saturating_sub(self.exit_at)
    }

    /// The part that nobody asked for, of a stall for which the limiter asked a sleep of `asked`: harvest, reset, and
    /// the lateness of the wake-up.
    pub fn overhead(&self, asked: Duration) -> Duration {
        self.length().saturating_sub(asked)
    }

    pub(crate) fn new(record: &StallRecord, vcpu: Option<VcpuId>) -> Self {
        Self {
            process: record.tgid,
            thread: record.tid,
            vcpu,
            cause: cause(record.cause),
            end: if record.end == END_ENTRY {
                StallEnd::Entry
            } else {
                StallEnd::Run
            },
            exit_at: Duration::from_nanos(record.exit_ns),
            end_at: Duration::from_nanos(record.end_ns),
        }
    }
}

pub(crate) fn cause(number: u32) -> StallCause {
    if number == CAUSE_RING_FULL {
        StallCause::RingFull
    } else {
        StallCause::Interrupted
    }
}

/// A page that a vCPU dirtied: one entry of its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Push {
    /// The vCPU's thread.
    pub thread: u32,
    /// Which vCPU that is, if it is known yet.
    pub vcpu: Option<VcpuId>,
    /// When.
    pub at: Duration,
    /// The memory slot.
    pub slot: u16,
    /// The address space of the slot: 0, or 1 in system management mode.
    pub address_space: u16,
    /// The page in its slot.
    pub offset: u64,
}

impl Push {
    pub(crate) fn new(record: &PushRecord, vcpu: Option<VcpuId>) -> Self {
        Self {
            thread: record.tid,
            vcpu,
            at: Duration::from_nanos(record.at_ns),
            slot: record.slot as u16,
            address_space: (record.slot >> 16) as u16,
            offset: record.offset,
        }
    }
}
