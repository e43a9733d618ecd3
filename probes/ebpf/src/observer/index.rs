//! Pages by the ring's own index, which KVM raises by one per page: read when a vCPU enters and leaves `KVM_RUN`, and whenever
//! the reader asks. So nothing runs for each page once it is known which vCPU has which ring, which its first push tells.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::RawTracePointContext};
use dirtyrig_probes_common::{
    LOST_RINGS, MAX_RING_ENTRIES, RING_CHANGES, RINGS_ALL_KNOWN, RINGS_CHANGED, Ring, Thread,
};

use crate::{
    atomic::fetch_add,
    config,
    maps::{Element, RINGS, RINGS_KNOWN, THREADS, get, lose, set},
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

/// Run by the reader: how far the ring at `arg(0)` is ahead of its dirty index `arg(1)`; negative if it can't be read. The
/// thread that has the ring was in `KVM_RUN` before and after, or the reader discards the answer.
///
/// Not by `#[raw_tracepoint]`, whose programs always return 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/kvm_dirty_ring_push")]
pub extern "C" fn look(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (ring, seen): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    indices_of(ring).map_or(-1, |indices| indices.dirty.wrapping_sub(seen as u32) as i32)
}

/// Whether these can be the indices of the ring whose dirty index was `seen` before.
#[inline(always)]
fn follow(indices: &Indices, seen: u32) -> bool {
    indices.dirty.wrapping_sub(seen) as i32 >= 0 && indices.dirty.wrapping_sub(indices.reset) <= MAX_RING_ENTRIES
}

/// The entry of a ring, if it is known.
#[inline(always)]
pub fn ring_at(key: u64) -> Option<Element<Ring>> {
    // SAFETY: just found.
    RINGS.get_ptr_mut(&key).map(|ring| unsafe { Element::found(ring) })
}

/// The entry of another thread, or of this one.
#[inline(always)]
pub fn thread_of(tid: u32) -> Option<Element<Thread>> {
    // SAFETY: just found.
    THREADS.get_ptr_mut(&tid).map(|thread| unsafe { Element::found(thread) })
}

/// Enters the ring that `thread` has just pushed to, if it is its own: whoever is not in `KVM_RUN` pushes for another, by
/// one of a vCPU's other calls.
#[inline(always)]
pub fn meet(tid: u32, thread: Element<Thread>, ring: u64) -> bool {
    let Some(indices) = indices_of(ring) else { return false };
    let known = ring_at(ring);
    let mut seen = None;
    if let Some(known) = known {
        let owner = get!(known.tid);
        if owner == tid {
            // It ran another vCPU in between.
            seen = Some(get!(known.dirty_index));
        } else if get!(thread.run_since_ns) == 0 {
            return false;
        } else {
            // Its vCPU was plugged out, and in again on this thread.
            seen = take_over(owner, ring);
        }
    }
    leave(thread);
    if let (Some(known), Some(seen)) = (known, seen)
        && indices.dirty != 1
        && follow(&indices, seen)
    {
        set!(known.tid, tid);
        go_on(thread, ring, indices.dirty, indices.dirty.wrapping_sub(seen));
        return true;
    }
    if rings_known(RINGS_ALL_KNOWN) != 0 {
        // It was made under our eyes: what was pushed and reset before this counts as well.
        go_on(thread, ring, indices.dirty, indices.dirty);
        given_back(thread, indices.reset, 0);
    } else {
        go_on(thread, ring, indices.dirty, 1);
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

/// Goes on with `ring`, whose dirty index is `index`: `pages` more than all that was counted until now.
#[inline(always)]
fn go_on(thread: Element<Thread>, ring: u64, index: u32, pages: u32) {
    let (beyond, seen, index) = (
        get!(thread.pages_beyond_index),
        get!(thread.dirty_index),
        u64::from(index),
    );
    // Who reads meanwhile is told to come again.
    set!(thread.ring, RING_CHANGES);
    set!(
        thread.pages_beyond_index,
        beyond
            .wrapping_add(seen)
            .wrapping_add(u64::from(pages))
            .wrapping_sub(index)
    );
    set!(thread.dirty_index, index);
    set!(thread.ring, ring);
}

/// Counts `entries` of the thread's ring that `resets` gave back. Any thread may: of a VM one at a time, but not of two VMs
/// whose vCPUs a thread ran one after the other.
#[inline(always)]
pub fn given_back(thread: Element<Thread>, entries: u32, resets: i64) {
    let thread = thread.as_ptr();
    // SAFETY: a live element; these members are written atomically only.
    unsafe {
        fetch_add((&raw mut (*thread).reset_entries).cast(), i64::from(entries));
        fetch_add((&raw mut (*thread).resets).cast(), resets);
    }
}

/// Takes its ring from a thread that is gone or runs another vCPU now; the dirty index up to which its pages are counted.
#[inline(always)]
fn take_over(owner: u32, ring: u64) -> Option<u32> {
    let owner = thread_of(owner)?;
    if get!(owner.ring) != ring {
        return None;
    }
    set!(owner.ring, 0);
    Some(get!(owner.dirty_index) as u32)
}

/// Notes how far the ring is that `thread` goes away from.
#[inline(always)]
fn leave(thread: Element<Thread>) {
    let ring = get!(thread.ring);
    if ring != 0
        && let Some(known) = ring_at(ring)
    {
        set!(known.dirty_index, get!(thread.dirty_index) as u32);
    }
}

/// Counts what the thread's ring has been pushed since its index was last read; the thread enters or leaves `KVM_RUN`. A
/// ring that does not go on where it was is another one by now, and forgotten.
#[inline(always)]
pub fn catch_up(thread: Element<Thread>) {
    let ring = get!(thread.ring);
    if config!(count_pushes) != 0 || ring == 0 {
        return;
    }
    let seen = get!(thread.dirty_index);
    match indices_of(ring) {
        Some(indices) if follow(&indices, seen as u32) => {
            set!(
                thread.dirty_index,
                seen + u64::from(indices.dirty.wrapping_sub(seen as u32))
            );
        }
        _ => {
            // It may be gone already.
            let _ = RINGS.remove(&ring);
            set!(thread.ring, 0);
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
