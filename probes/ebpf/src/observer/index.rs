//! Pages by the ring's own index, which KVM raises by one a page: read when a vCPU enters and leaves `KVM_RUN`, and whenever
//! the reader asks. So nothing runs for each page once it is known which vCPU has which ring, which its first push tells.

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};
use dirtyrig_probes_common::{LOST_RINGS, MAX_RING_ENTRIES, RINGS_ALL_KNOWN, RINGS_CHANGED, Ring, Thread};

use crate::{
    atomic::fetch_add,
    config,
    maps::{RINGS, RINGS_KNOWN, THREADS, lose},
};

/// The head of the kernel's `struct kvm_dirty_ring`, unchanged since it came in Linux 5.11.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Indices {
    pub dirty: u32,
    pub reset: u32,
}

#[inline(always)]
pub fn indices_of(ring: u64) -> Option<Indices> {
    // SAFETY: an event's own argument, then or earlier; the helper checks the address.
    unsafe { bpf_probe_read_kernel(ring as *const Indices) }.ok()
}

/// Run by the reader: how far the ring at `arg(0)` is ahead of its dirty index `arg(1)`. The thread that has the ring was in
/// `KVM_RUN` before and after, or the reader discards the answer.
#[raw_tracepoint(tracepoint = "kvm_dirty_ring_push")]
pub fn look(ctx: RawTracePointContext) -> i32 {
    let (ring, seen): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    indices_of(ring).map_or(0, |indices| indices.dirty.wrapping_sub(seen as u32) as i32)
}

/// Whether these can be the indices of the ring whose dirty index was `seen` before.
#[inline(always)]
fn follow(indices: &Indices, seen: u32) -> bool {
    indices.dirty.wrapping_sub(seen) as i32 >= 0 && indices.dirty.wrapping_sub(indices.reset) <= MAX_RING_ENTRIES
}

/// Enters the ring that `thread` has just pushed to, if it is its own: whoever is not in `KVM_RUN` pushes for another, by
/// one of a vCPU's other calls.
#[inline(always)]
pub fn meet(tid: u32, thread: &mut Thread, ring: u64) -> bool {
    let Some(indices) = indices_of(ring) else { return false };
    let known = RINGS.get_ptr_mut(&ring);
    let mut seen = None;
    if let Some(known) = known {
        // SAFETY: a live element of a preallocated map.
        let (owner, index) = unsafe { ((*known).tid, (*known).dirty_index) };
        if owner == tid {
            // It ran another vCPU in between.
            seen = Some(index);
        } else if thread.run_since_ns == 0 {
            return false;
        } else {
            // Its vCPU was plugged out, and in again on this thread.
            seen = take_over(owner, ring);
        }
    }
    leave(thread);
    thread.ring = ring;
    thread.dirty_index = indices.dirty;
    if let (Some(known), Some(seen)) = (known, seen)
        && indices.dirty != 1
        && follow(&indices, seen)
    {
        // SAFETY: as above.
        unsafe { (*known).tid = tid }
        thread.indexed_pages += u64::from(indices.dirty.wrapping_sub(seen));
        return true;
    }
    if rings_known(RINGS_ALL_KNOWN) != 0 {
        // It was made under our eyes: what was pushed and reset before this counts as well.
        thread.indexed_pages += u64::from(indices.dirty);
        thread.reset_entries += u64::from(indices.reset);
    } else {
        thread.indexed_pages += 1;
    }
    let fresh = Ring {
        tid,
        reset_index: indices.reset,
        dirty_index: indices.dirty,
        pushes: 0,
    };
    if RINGS.insert(&ring, &fresh, 0).is_err() {
        lose(LOST_RINGS);
    }
    true
}

/// Takes its ring from a thread that is gone or runs another vCPU now; the dirty index up to which its pages are counted.
#[inline(always)]
fn take_over(owner: u32, ring: u64) -> Option<u32> {
    let owner = THREADS.get_ptr_mut(&owner)?;
    // SAFETY: a live element, whose thread no longer counts this ring.
    unsafe {
        if (*owner).ring != ring {
            return None;
        }
        (*owner).ring = 0;
        Some((*owner).dirty_index)
    }
}

/// Notes how far the ring is that `thread` goes away from.
#[inline(always)]
fn leave(thread: &Thread) {
    if thread.ring != 0
        && let Some(known) = RINGS.get_ptr_mut(&thread.ring)
    {
        // SAFETY: a live element; this member is written by the ring's thread alone.
        unsafe { (*known).dirty_index = thread.dirty_index }
    }
}

/// Counts what the thread's ring has been pushed since its index was last read; the thread enters or leaves `KVM_RUN`. A
/// ring that does not go on where it was is another one by now, and forgotten.
#[inline(always)]
pub fn catch_up(thread: &mut Thread) {
    if config!(count_pushes) != 0 || thread.ring == 0 {
        return;
    }
    match indices_of(thread.ring) {
        Some(indices) if follow(&indices, thread.dirty_index) => {
            thread.indexed_pages += u64::from(indices.dirty.wrapping_sub(thread.dirty_index));
            thread.dirty_index = indices.dirty;
        }
        _ => {
            // It may be gone already.
            let _ = RINGS.remove(&thread.ring);
            thread.ring = 0;
            change();
        }
    }
}

/// Tells everybody that a vCPU has come, or a ring gone.
#[inline(always)]
pub fn change() {
    if let Some(changes) = RINGS_KNOWN.get_ptr_mut(RINGS_CHANGED) {
        // SAFETY: a live element, which all programs change atomically.
        unsafe { fetch_add(changes.cast(), 1) };
    }
}

/// A member of `RINGS_KNOWN`.
#[inline(always)]
pub fn rings_known(which: u32) -> u64 {
    // SAFETY: a live element; volatile because other CPUs and the reader write it.
    RINGS_KNOWN
        .get_ptr(which)
        .map_or(0, |known| unsafe { core::ptr::read_volatile(known) })
}
