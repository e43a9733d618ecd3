//! Atomic addition: `core` offers none on a target without compare-and-swap.

use core::arch::asm;

/// Adds to `*count` and returns what it was: sequentially consistent, the only order that the kernel's JIT has.
///
/// # Safety
/// `count` must point into a live map element, whose other users are atomic too.
#[inline(always)]
pub unsafe fn fetch_add(count: *mut i64, by: i64) -> i64 {
    let mut value = by;
    // SAFETY: by the caller; the instruction (Linux 5.12) reads and writes `*count` alone.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({count} + 0), {value})",
            value = inout(reg) value,
            count = in(reg) count,
            options(nostack),
        );
    }
    value
}
