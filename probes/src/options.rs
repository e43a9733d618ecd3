//! What to attach, and how.

use crate::{AttachKind, Target};

/// What to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose vCPUs.
    pub target: Target,
    /// A [`Push`](crate::Push) for every page that is dirtied, 32 bytes of buffer each.
    pub trace_pushes: bool,
    /// Whether to attach `kvm_entry` and `kvm_exit`: hardware exits by reason, and stalls that end at the entry into
    /// the guest itself. Where they fire, every exit costs the guest a fraction of a microsecond more.
    pub hardware_exits: bool,
    /// Size of each of the two buffers, for stalls and for pushes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Ways to attach, best first; what is not listed is not tried.
    pub attach: Vec<AttachKind>,
}

impl Options {
    /// Counts and stalls, in buffers of 256 KiB: 6,500 stalls between two calls of [`Probes::drain`](crate::Probes::drain).
    pub fn new(target: Target) -> Self {
        Self {
            target,
            trace_pushes: false,
            hardware_exits: true,
            ring_bytes: 256 * 1024,
            attach: vec![AttachKind::RawTracepoint, AttachKind::Tracepoint],
        }
    }

    /// The same with every page, in buffers of 64 MiB: two million pages between two calls of [`Probes::drain`](crate::Probes::drain).
    #[must_use]
    pub fn tracing(self) -> Self {
        Self {
            trace_pushes: true,
            ring_bytes: 64 << 20,
            ..self
        }
    }
}
