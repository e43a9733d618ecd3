//! One vCPU's dirty ring: a safe view of the memory that KVM shares with us.
//!
//! KVM pushes an entry for every page that a vCPU dirties and that it had not logged since its last reset. Each entry
//! goes round these states; who moves it on is written at the arrow:
//!
//! ```text
//!            kernel: push (store-release DIRTY)
//!   invalid ────────────────────────────────────▶ dirty
//!      ▲                                            │ we: harvest (load-acquire DIRTY)
//!      │ kernel: KVM_RESET_DIRTY_RINGS              ▼
//!    reset ◀──────────────────────────────────── harvested
//!            we: release (store-release RESET)
//! ```
//!
//! and three counters chase each other round the ring:
//!
//! ```text
//!      released      harvested                pushed (the kernel's)
//!         │  held back   │  still to harvest     │
//!   ──────┴──────────────┴───────────────────────┴──────▶
//!         └────────── at most `soft limit` ──────┘   then every entry of the vCPU ends in a ring-full exit
//! ```
//!
//! Harvesting and releasing are two steps because entries may be *held back*: a page whose entry isn't reset stays
//! writable without being logged again, so it costs the guest nothing, and the ring behind it is smaller by it.
//!
//! Page contents may be read only after the reset ioctl: a page read before it could be written once more unlogged.

use std::{
    io,
    os::fd::AsRawFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use kvm_bindings::KVM_DIRTY_LOG_PAGE_OFFSET;
use kvm_ioctls::VcpuFd;

use crate::{Error, RingSize, size::ENTRY_BYTES};

/// `KVM_DIRTY_GFN_F_DIRTY`: the kernel has published the entry.
const DIRTY: u32 = 1;
/// `KVM_DIRTY_GFN_F_RESET`: user space has given the entry back.
const RESET: u32 = 2;

/// `struct kvm_dirty_gfn` as both sides see it. The flags are the only field that both write; the others are atomics as
/// well, so that whoever maps a ring a second time gets wrong counts and not undefined behaviour.
#[repr(C)]
struct Entry {
    flags: AtomicU32,
    slot: AtomicU32,
    offset: AtomicU64,
}

const _: () = {
    assert!(size_of::<Entry>() == ENTRY_BYTES);
    assert!(std::mem::offset_of!(Entry, flags) == std::mem::offset_of!(kvm_bindings::kvm_dirty_gfn, flags));
    assert!(std::mem::offset_of!(Entry, slot) == std::mem::offset_of!(kvm_bindings::kvm_dirty_gfn, slot));
    assert!(std::mem::offset_of!(Entry, offset) == std::mem::offset_of!(kvm_bindings::kvm_dirty_gfn, offset));
};

/// A page that was dirtied: which memory slot, and which page of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPage {
    /// The memory slot's id; the address space is in its upper half.
    pub slot: u32,
    /// The page's index within the slot.
    pub offset: u64,
}

/// The dirty ring of one vCPU, mapped.
///
/// One owner at a time: whoever harvests also releases and resets. `&mut self` makes that so for one mapping. The reset
/// works on all rings of a VM: guard them by one lock.
#[derive(Debug)]
pub struct DirtyRing {
    entries: NonNull<Entry>,
    size: u32,
    /// Entries harvested since the ring was mapped; the next one to look at is this, modulo the size.
    harvested: u64,
    /// Entries given back since the ring was mapped.
    released: u64,
}

// SAFETY: the mapping isn't tied to a thread, is unmapped by this value alone, and holds nothing but atomics.
unsafe impl Send for DirtyRing {}

impl DirtyRing {
    /// Maps the ring of `vcpu`, whose VM was given rings of `size`.
    ///
    /// Map it once: a second mapping begins at the first entry again, and either one releases entries that the other
    /// counts as its own. [`reset`](crate::reset()) then reports a mismatch.
    ///
    /// # Errors
    /// [`Error::Map`] if the system refuses: the VM was given no rings, or smaller ones.
    pub fn map(vcpu: &VcpuFd, size: RingSize) -> Result<Self, Error> {
        Self::map_shared(vcpu.as_raw_fd(), page_offset(), size.entries()).map_err(|source| Error::Map { source })
    }

    fn map_shared(fd: i32, offset: i64, size: u32) -> io::Result<Self> {
        let bytes = size as usize * ENTRY_BYTES;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = NonNull::new(address.cast()).expect("mmap without MAP_FIXED never maps page 0");
        Ok(Self {
            entries,
            size,
            harvested: 0,
            released: 0,
        })
    }

    /// Entry number `index` since the beginning, wherever in the ring that is.
    fn entry(&self, index: u64) -> &Entry {
        let position = (index % u64::from(self.size)) as usize;
        // SAFETY: the mapping has `size` entries, and `position` is below that.
        let entry = unsafe { self.entries.add(position) };
        // SAFETY: it lives as long as `self`, is aligned as the mapping is to a page, and holds atomics only. Any bytes are
        // valid for these, and a change by the kernel, or through another mapping, is no data race.
        unsafe { entry.as_ref() }
    }

    /// Takes note of every entry that the kernel has published, in order; returns how many are new.
    ///
    /// They stay the ring's until [`release`](Self::release) gives them back. Never takes more than the ring holds.
    #[inline]
    pub fn harvest(&mut self) -> u64 {
        let first = self.harvested;
        // Entries that were harvested and not given back still say DIRTY: the ring's size bounds the walk.
        let end = self.released + u64::from(self.size);
        // Acquire: pairs with the kernel's store-release of DIRTY, so that slot and offset are the entry's own.
        while self.harvested < end && self.entry(self.harvested).flags.load(Ordering::Acquire) & DIRTY != 0 {
            self.harvested += 1;
        }
        self.harvested - first
    }

    /// Marks harvested entries, oldest first, to be reset, all but the newest `hold`, and passes their pages to `sink`;
    /// returns how many.
    ///
    /// The kernel takes them back at the next reset ioctl, which must return the same number. Pages are passed on here
    /// and not when they are harvested because a page that is held back can still be written unlogged.
    #[inline]
    pub fn release(&mut self, hold: u64, mut sink: impl FnMut(DirtyPage)) -> u64 {
        let first = self.released;
        let end = self.harvested.saturating_sub(hold).max(first);
        while self.released < end {
            let entry = self.entry(self.released);
            // Relaxed: the acquire load of its flags in `harvest` published both, and the kernel leaves a dirty entry alone
            // until it is reset.
            let (slot, offset) = (entry.slot.load(Ordering::Relaxed), entry.offset.load(Ordering::Relaxed));
            sink(DirtyPage { slot, offset });
            // Release: pairs with the kernel's load-acquire in its reset, so that our reads of the entry come before it.
            self.entry(self.released).flags.store(RESET, Ordering::Release);
            self.released += 1;
        }
        self.released - first
    }

    /// Entries harvested since the ring was mapped.
    pub fn harvested(&self) -> u64 {
        self.harvested
    }

    /// Entries harvested but held back from reset.
    pub fn held(&self) -> u64 {
        self.harvested - self.released
    }

    /// How many entries the ring has, the reserve included.
    pub fn size(&self) -> u32 {
        self.size
    }
}

/// Where a vCPU's descriptor has its ring, in bytes.
fn page_offset() -> i64 {
    // SAFETY: it only reads a property of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    i64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * page
}

impl Drop for DirtyRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `map_shared` with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), self.size as usize * ENTRY_BYTES) };
    }
}

#[cfg(test)]
mod tests;
