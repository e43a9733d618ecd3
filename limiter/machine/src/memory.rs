//! Guest memory: mapped, populated, and laid out in slots.
//!
//! First touch of memory costs more than a dirty fault, so all of it is populated before anything is measured.

use std::io;

use dirtyrig_guests::block::VcpuBlock;
use dirtyrig_limiter::units::PAGE_SIZE;
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    mmap::MmapRegionBuilder,
};

use crate::Error;

/// Whether the host may back guest memory with 2 MiB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Never: what is measured doesn't depend on whether the host found one.
    #[default]
    Never,
    /// Wherever the host finds one (transparent huge pages).
    Transparent,
}

/// One stretch of guest physical memory; becomes a memory slot of the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address, a multiple of the page size.
    pub gpa: u64,
    /// Length in bytes, a multiple of the page size.
    pub bytes: u64,
    /// Whether writes to it are logged in the dirty rings.
    pub logged: bool,
}

/// The memory of a guest, host side.
pub struct GuestMemory {
    map: GuestMemoryMmap<()>,
    regions: Vec<Region>,
}

impl GuestMemory {
    /// Maps and populates `regions`, which are in order of address and don't overlap.
    ///
    /// # Errors
    /// [`Error::Memory`] if the system has no room for them.
    pub fn populated(regions: &[Region], huge: HugePages) -> Result<Self, Error> {
        let bytes: u64 = regions.iter().map(|region| region.bytes).sum();
        let refused = |source| Error::Memory {
            mib: bytes >> 20,
            source,
        };
        let mapped = regions
            .iter()
            .map(|region| map_region(*region, huge).map_err(refused))
            .collect::<Result<Vec<_>, _>>()?;
        let map = GuestMemoryMmap::from_regions(mapped).map_err(|error| refused(io::Error::other(error)))?;
        Ok(Self {
            map,
            regions: regions.to_vec(),
        })
    }

    /// Makes each region a memory slot of `vm`, numbered in order; those that are logged with `KVM_MEM_LOG_DIRTY_PAGES`.
    ///
    /// # Safety
    /// No vCPU of `vm` runs once the memory is gone.
    ///
    /// # Errors
    /// If the kernel refuses a slot.
    #[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
    pub unsafe fn give_to(&self, vm: &VmFd) -> Result<(), Error> {
        for (slot, region) in self.regions.iter().enumerate() {
            let host = self
                .map
                .get_host_address(GuestAddress(region.gpa))
                .expect("every region was mapped");
            let slot = kvm_userspace_memory_region {
                slot: u32::try_from(slot).expect("a guest has a handful of regions"),
                flags: if region.logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: region.gpa,
                memory_size: region.bytes,
                userspace_addr: host as u64,
            };
            // SAFETY: the host range is a mapping of `self`, which the caller keeps as long as a vCPU runs.
            unsafe { vm.set_user_memory_region(slot) }.map_err(Error::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }

    /// Copies `bytes` to guest address `gpa`.
    ///
    /// # Errors
    /// [`Error::OutsideMemory`] if the guest has no memory there.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        self.map
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| Error::OutsideMemory {
                gpa,
                bytes: bytes.len() as u64,
            })
    }

    /// Reads the 64-bit word at guest address `gpa`.
    ///
    /// # Errors
    /// [`Error::OutsideMemory`] if the guest has no memory there.
    pub fn read_u64(&self, gpa: u64) -> Result<u64, Error> {
        self.map
            .read_obj(GuestAddress(gpa))
            .map_err(|_| Error::OutsideMemory { gpa, bytes: 8 })
    }

    /// The block at `gpa` that a vCPU's program shares with us.
    ///
    /// # Errors
    /// [`Error::OutsideMemory`] if the guest has no memory there.
    pub fn block(&self, gpa: u64) -> Result<&VcpuBlock, Error> {
        let bytes = size_of::<VcpuBlock>();
        let outside = || Error::OutsideMemory {
            gpa,
            bytes: bytes as u64,
        };
        let slice = self.map.get_slice(GuestAddress(gpa), bytes).map_err(|_| outside())?;
        #[expect(clippy::cast_ptr_alignment, reason = "checked on the next line")]
        let pointer = slice.ptr_guard().as_ptr().cast::<VcpuBlock>();
        if !pointer.is_aligned() {
            return Err(outside());
        }
        // SAFETY: the slice is mapped as long as `self`, aligned as just checked, and as long as the block; the block is
        // made of atomics only, so that the guest may change it under us, and any bytes are valid for it.
        Ok(unsafe { &*pointer })
    }
}

fn map_region(region: Region, huge: HugePages) -> io::Result<GuestRegionMmap<()>> {
    assert_eq!(
        (region.gpa % PAGE_SIZE, region.bytes % PAGE_SIZE),
        (0, 0),
        "regions are whole pages"
    );
    let bytes = usize::try_from(region.bytes).map_err(io::Error::other)?;
    let mapping = MmapRegionBuilder::new(bytes)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
        .map_err(io::Error::other)?;
    let advice = match huge {
        HugePages::Never => libc::MADV_NOHUGEPAGE,
        HugePages::Transparent => libc::MADV_HUGEPAGE,
    };
    // A kernel built without huge pages refuses both, and then has none anyway.
    let _ = advise(mapping.as_ptr(), bytes, advice);
    advise(mapping.as_ptr(), bytes, libc::MADV_POPULATE_WRITE)?;
    GuestRegionMmap::new(mapping, GuestAddress(region.gpa))
        .ok_or_else(|| io::Error::other("the region ends beyond the address space"))
}

fn advise(address: *mut u8, bytes: usize, advice: i32) -> io::Result<()> {
    // SAFETY: the range is a mapping of ours that nothing refers to yet; the advice given never drops its contents.
    match unsafe { libc::madvise(address.cast(), bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: u64 = self.map.iter().map(GuestMemoryRegion::len).sum();
        f.debug_struct("GuestMemory")
            .field("bytes", &bytes)
            .field("regions", &self.regions)
            .finish()
    }
}
