//! What can go wrong between here and the kernel.

use std::io;

/// An operation on a dirty ring that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host's KVM has no dirty ring.
    #[error("this kernel's KVM has no dirty ring (KVM_CAP_DIRTY_LOG_RING): Linux 5.11 or newer on x86-64 has one")]
    Unsupported,
    /// A ring of this size is not possible.
    #[error("a dirty ring of {entries} entries is not possible here: give a power of two from {min} to {max} entries")]
    Size {
        /// The number of entries that was asked for.
        entries: u32,
        /// The smallest size possible.
        min: u32,
        /// The largest size possible.
        max: u32,
    },
    /// The capability cannot be enabled.
    #[error("can't enable dirty rings of {entries} entries: that is done once per VM, before its first vCPU")]
    Enable {
        /// The size that was asked for.
        entries: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The ring of a vCPU cannot be mapped.
    #[error("can't map the dirty ring of a vCPU: its VM was given none, or smaller ones")]
    Map {
        /// What the system answered.
        source: io::Error,
    },
    /// The reset ioctl failed.
    #[error("KVM_RESET_DIRTY_RINGS failed")]
    Reset {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel reset another number of entries than were released.
    #[error(
        "{released} ring entries were released, but the kernel reset {reset}: someone else harvests this VM's rings"
    )]
    ResetMismatch {
        /// Entries marked for reset.
        released: u64,
        /// Entries that the kernel reset.
        reset: u64,
    },
}
