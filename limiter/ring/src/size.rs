//! How large a ring may be, and the capability that gives every vCPU of a VM one.

use kvm_bindings::{KVM_CAP_DIRTY_LOG_RING_ACQ_REL, kvm_dirty_gfn, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};

use crate::Error;

/// Bytes of one ring entry.
pub(crate) const ENTRY_BYTES: usize = size_of::<kvm_dirty_gfn>();

/// A ring needs at least one page, and more entries than the kernel keeps in reserve (64, and 512 more with Intel PML).
pub const MIN_RING_ENTRIES: u32 = 1024;

/// `KVM_DIRTY_RING_MAX_ENTRIES` of the kernel.
pub const MAX_RING_ENTRIES: u32 = 65536;

/// The capabilities by which kernels offer rings, the better one first. Only x86-64, whose loads and stores are ordered
/// anyway, has the one without documented acquire and release semantics.
#[cfg(target_arch = "x86_64")]
const CAPABILITIES: [u32; 2] = [KVM_CAP_DIRTY_LOG_RING_ACQ_REL, kvm_bindings::KVM_CAP_DIRTY_LOG_RING];
#[cfg(not(target_arch = "x86_64"))]
const CAPABILITIES: [u32; 1] = [KVM_CAP_DIRTY_LOG_RING_ACQ_REL];

/// A number of ring entries that KVM accepts: a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingSize(u32);

impl RingSize {
    /// Takes `entries` if it is a power of two from [`MIN_RING_ENTRIES`] to [`MAX_RING_ENTRIES`].
    ///
    /// # Errors
    /// [`Error::Size`] if it isn't.
    pub fn new(entries: u32) -> Result<Self, Error> {
        if entries.is_power_of_two() && (MIN_RING_ENTRIES..=MAX_RING_ENTRIES).contains(&entries) {
            Ok(Self(entries))
        } else {
            Err(Error::Size {
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

    /// Bytes of the ring itself, which is what the capability takes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) * ENTRY_BYTES as u64
    }
}

/// Which dirty-ring capability a kernel has, and how large a ring may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingCapability {
    /// The capability to enable: the one with documented acquire and release semantics where the kernel has it.
    pub capability: u32,
    /// The largest ring, in entries.
    pub max_entries: u32,
}

impl RingCapability {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no dirty ring.
    pub fn of(kvm: &Kvm) -> Result<Self, Error> {
        CAPABILITIES
            .into_iter()
            .find_map(|capability| {
                let bytes = kvm.check_extension_raw(capability.into());
                let max_entries = u32::try_from(bytes).ok()? / ENTRY_BYTES as u32;
                (max_entries > 0).then_some(Self {
                    capability,
                    max_entries,
                })
            })
            .ok_or(Error::Unsupported)
    }
}

/// Gives every vCPU that `vm` will have a dirty ring of `size`. Called once, before the first vCPU is created.
///
/// # Errors
/// [`Error::Unsupported`] if the kernel has no dirty ring, [`Error::Size`] if it has none so large, [`Error::Enable`] if it
/// refuses.
pub fn enable(kvm: &Kvm, vm: &VmFd, size: RingSize) -> Result<(), Error> {
    let RingCapability {
        capability,
        max_entries,
    } = RingCapability::of(kvm)?;
    if size.entries() > max_entries {
        return Err(Error::Size {
            entries: size.entries(),
            min: MIN_RING_ENTRIES,
            max: max_entries,
        });
    }
    let enable = kvm_enable_cap {
        cap: capability,
        args: [size.bytes(), 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&enable).map_err(|error| Error::Enable {
        entries: size.entries(),
        source: std::io::Error::from_raw_os_error(error.errno()),
    })
}
