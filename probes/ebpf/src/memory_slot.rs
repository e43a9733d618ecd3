//! The kernel's `struct kvm_memory_slot`, whose layout the loader finds out.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Where its members are.
#[derive(Clone, Copy)]
pub struct Layout {
    pub bitmap_at: u32,
    pub base_at: u32,
}

/// The page of a slot that is about to be marked dirty in the slot's bitmap: `None` if it has none, because its VM has rings or
/// isn't logged, or if it is marked already.
#[inline(always)]
pub fn newly_dirty(slot: u64, gfn: u64, layout: Layout) -> Option<u64> {
    if slot == 0 {
        return None;
    }
    let bitmap: u64 = read(slot + u64::from(layout.bitmap_at))?;
    if bitmap == 0 {
        return None;
    }
    let page = gfn.wrapping_sub(read(slot + u64::from(layout.base_at))?);
    let word: u64 = read(bitmap.wrapping_add(page / 64 * 8))?;
    (word >> (page % 64) & 1 == 0).then_some(page)
}

/// What stands at an address of the kernel's.
#[inline(always)]
pub fn read<T>(at: u64) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}
