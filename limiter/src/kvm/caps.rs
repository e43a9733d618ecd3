//! What this host's KVM can do for a dirty ring.

use kvm_bindings::{KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_DIRTY_LOG_PAGE_OFFSET};
use kvm_ioctls::Kvm;

use super::Error;
use super::ring::ENTRY_BYTES;

/// A ring needs at least one page, and more entries than the kernel keeps in reserve (64, and 512 more with Intel PML).
pub const MIN_RING_ENTRIES: u32 = 1024;

/// `KVM_DIRTY_RING_MAX_ENTRIES` of the kernel.
pub const MAX_RING_ENTRIES: u32 = 65536;

/// The page of a vCPU's descriptor at which its ring is mapped.
pub(crate) const RING_PAGE_OFFSET: u64 = KVM_DIRTY_LOG_PAGE_OFFSET as u64;

/// A number of ring entries that KVM accepts: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingSize(u32);

impl RingSize {
    /// Takes `entries` if it is a power of two from [`MIN_RING_ENTRIES`] to [`MAX_RING_ENTRIES`].
    pub fn new(entries: u32) -> Result<Self, Error> {
        if entries.is_power_of_two() && (MIN_RING_ENTRIES..=MAX_RING_ENTRIES).contains(&entries) {
            Ok(Self(entries))
        } else {
            Err(Error::RingSize {
                entries,
                min: MIN_RING_ENTRIES,
                max: MAX_RING_ENTRIES,
            })
        }
    }

    /// How many entries the ring has, the reserve included.
    pub fn entries(self) -> u32 {
        self.0
    }

    /// Size of the ring itself, which is what the capability takes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) * ENTRY_BYTES as u64
    }

    /// MiB of guest memory that a full ring stands for, by its nominal size as QEMU computes it.
    pub fn guest_mib(self) -> u64 {
        u64::from(self.0) / crate::units::PAGES_PER_MIB
    }
}

/// Which of the two dirty-ring capabilities a kernel has, and how large a ring may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingCapability {
    /// The capability to enable: the one with documented acquire and release semantics where the kernel has it.
    pub capability: u32,
    /// The largest ring, in entries.
    pub max_entries: u32,
}

impl RingCapability {
    /// Asks the kernel.
    pub fn of(kvm: &Kvm) -> Result<Self, Error> {
        [KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING]
            .into_iter()
            .find_map(|capability| {
                let bytes = kvm.check_extension_raw(capability.into());
                let max_entries = u32::try_from(bytes).ok()? / ENTRY_BYTES as u32;
                (max_entries > 0).then_some(Self {
                    capability,
                    max_entries,
                })
            })
            .ok_or(Error::NoDirtyRing)
    }
}

/// Opens `/dev/kvm`.
pub fn open() -> Result<Kvm, Error> {
    Kvm::new().map_err(|source| Error::Open { source })
}
