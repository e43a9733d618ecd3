//! The kernel events that the probes read, and which program reads each.

use std::fmt;

/// The kernel events that the probes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvmEvent {
    /// `kvm_dirty_ring_push`: a page was dirtied.
    RingPush,
    /// `kvm_dirty_ring_reset`: entries came back.
    RingReset,
    /// `kvm_dirty_ring_exit`: a ring is full, and whose.
    RingExit,
    /// `kvm_userspace_exit`: `KVM_RUN` returns.
    UserspaceExit,
    /// `sys_enter_ioctl`, for `KVM_RUN`.
    Run,
    /// `kvm_entry`: the guest runs.
    Entry,
    /// `kvm_exit`: the guest stops running.
    Exit,
}

impl fmt::Display for KvmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plan().event)
    }
}

/// What is attached where.
pub(crate) struct Plan {
    pub(crate) category: &'static str,
    pub(crate) event: &'static str,
    /// The program for the raw tracepoint, where that has all it needs.
    pub(crate) raw: Option<&'static str>,
    /// The program for the classic tracepoint.
    pub(crate) classic: &'static str,
}

impl KvmEvent {
    /// All of them, in the order in which they are attached.
    pub const ALL: [Self; 7] = [
        Self::UserspaceExit,
        Self::RingExit,
        Self::RingPush,
        Self::RingReset,
        Self::Run,
        Self::Entry,
        Self::Exit,
    ];

    pub(crate) fn plan(self) -> Plan {
        let (event, raw, classic) = match self {
            Self::RingPush => ("kvm_dirty_ring_push", Some("push_raw"), "push_tp"),
            Self::RingReset => ("kvm_dirty_ring_reset", Some("reset_raw"), "reset_tp"),
            Self::RingExit => ("kvm_dirty_ring_exit", None, "ring_exit_tp"),
            Self::UserspaceExit => ("kvm_userspace_exit", Some("userspace_exit_raw"), "userspace_exit_tp"),
            Self::Run => ("sys_enter_ioctl", None, "run_tp"),
            Self::Entry => ("kvm_entry", Some("entry_raw"), "entry_tp"),
            Self::Exit => ("kvm_exit", None, "exit_tp"),
        };
        Plan {
            category: if self == Self::Run { "syscalls" } else { "kvm" },
            event,
            raw,
            classic,
        }
    }
}
