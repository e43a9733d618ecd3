//! The dirty ring: pages pushed, entries reset.
//!
//! A push is the hottest event, one a dirtied page. Where the ring's index can be read ([`index`](crate::index)) the raw
//! program only learns whose ring it is, and is detached once there is nothing to learn. Otherwise, and for the trace, it
//! sees that it is the thread and the ring of this CPU's last push, and nothing has to be looked up.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::bpf_get_current_pid_tgid,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use dirtyrig_probes_common::{LOST_PUSHES, LOST_RINGS, Last, MAX_RING_ENTRIES, PushRecord, RINGS_CHANGED, Ring, Thread};

use crate::{
    config,
    index::{self, Indices, indices_of, rings_known},
    maps::{LAST, PUSHED, PUSHES, RINGS, THREADS, lose},
    run::field,
    thread::{now, watched},
};

/// A push that is logged while a reset reads the two counts: how far they may be apart in one ring.
const IN_FLIGHT: i32 = 64;

#[raw_tracepoint(tracepoint = "kvm_dirty_ring_push")]
pub fn push_raw(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(struct kvm_dirty_ring *ring, u32 slot, u64 offset)
    let ring: u64 = ctx.arg(0);
    let Some(last) = LAST.get_ptr_mut(0) else { return 0 };
    // SAFETY: a live map element of this CPU; programs of this type do not migrate while they run.
    let last = unsafe { &mut *last };
    let changes = rings_known(RINGS_CHANGED);
    let same_ring = last.ring == ring && last.changes == changes;
    if same_ring && config!(count_pushes) == 0 && config!(trace_pushes) == 0 {
        return 0;
    }
    let id = bpf_get_current_pid_tgid();
    if !(same_ring && last.id == id) && !find(last, id, ring, changes) {
        return 0;
    }
    if config!(count_pushes) != 0 {
        count(last.slot);
    }
    if config!(trace_pushes) != 0 {
        let (slot, offset): (u64, u64) = (ctx.arg(1), ctx.arg(2));
        trace(id as u32, slot as u32, offset);
    }
    0
}

/// Another thread, or another ring, than that of this CPU's last push: looks up where it is counted.
#[inline(always)]
fn find(last: &mut Last, id: u64, ring: u64, changes: u64) -> bool {
    let Some((tid, thread)) = watched() else { return false };
    if thread.ring != ring {
        if config!(count_pushes) == 0 {
            if !index::meet(tid, thread, ring) {
                // Not its own, and yet a page of the trace.
                return true;
            }
        } else if let Some(indices) = indices_of(ring) {
            // This push is in the indices and is yet to be counted.
            let pushes = pushed(thread.slot) as u32;
            meet(tid, thread, ring, indices, pushes.wrapping_add(1));
        }
    }
    *last = Last {
        id,
        ring,
        slot: thread.slot,
        changes,
    };
    true
}

#[inline(always)]
fn count(slot: u64) {
    if let Some(pushed) = PUSHED.get_ptr_mut(slot as u32) {
        // SAFETY: a live map element with one writer, the thread that has the slot.
        unsafe { (*pushed).pages += 1 }
    }
}

#[inline(always)]
fn pushed(slot: u64) -> u64 {
    // SAFETY: a live map element; its thread may just be counting on another CPU.
    PUSHED.get_ptr(slot as u32).map_or(0, |pushed| unsafe {
        core::ptr::read_volatile(&raw const (*pushed).pages)
    })
}

#[tracepoint]
pub fn push_tp(ctx: TracePointContext) -> u32 {
    let Some((tid, thread)) = watched() else { return 0 };
    count(thread.slot);
    if thread.ring == 0
        && let (Some(index), Some(dirty), Some(reset)) = (
            field::<u32>(&ctx, config!(push_index_at)),
            field(&ctx, config!(push_dirty_index_at)),
            field(&ctx, config!(push_reset_index_at)),
        )
    {
        let pushes = pushed(thread.slot) as u32;
        meet(
            tid,
            thread,
            by_index(thread.tgid, index),
            Indices { dirty, reset },
            pushes,
        );
    }
    if config!(trace_pushes) != 0
        && let (Some(slot), Some(offset)) = (field(&ctx, config!(push_slot_at)), field(&ctx, config!(push_offset_at)))
    {
        trace(tid, slot, offset);
    }
    0
}

/// The kernel's address of a ring, or (classic tracepoints) this: no kernel address has a zero in its top bit.
#[inline(always)]
fn by_index(tgid: u32, index: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from(index)
}

/// Where pushes are counted: enters the ring that `thread` pushes to, as it stands after this push, its `pushes`-th.
#[inline(always)]
fn meet(tid: u32, thread: &mut Thread, ring: u64, indices: Indices, pushes: u32) {
    thread.ring = ring;
    let fresh = Ring {
        tid,
        reset_index: indices.reset,
        dirty_index: indices.dirty,
        pushes,
    };
    if RINGS.insert(&ring, &fresh, 0).is_err() {
        lose(LOST_RINGS);
    }
}

#[inline(always)]
fn trace(tid: u32, slot: u32, offset: u64) {
    match PUSHES.reserve::<PushRecord>(0) {
        Some(mut entry) => {
            entry.write(PushRecord {
                at_ns: now(),
                offset,
                tid,
                slot,
            });
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => lose(LOST_PUSHES),
    }
}

#[raw_tracepoint(tracepoint = "kvm_dirty_ring_reset")]
pub fn reset_raw(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(struct kvm_dirty_ring *ring)
    let ring: u64 = ctx.arg(0);
    if let Some(indices) = indices_of(ring) {
        reset(ring, indices);
    }
    0
}

#[tracepoint]
pub fn reset_tp(ctx: TracePointContext) -> u32 {
    if let (Some(index), Some(dirty), Some(reset_index)) = (
        field::<u32>(&ctx, config!(reset_index_at)),
        field(&ctx, config!(reset_dirty_index_at)),
        field(&ctx, config!(reset_reset_index_at)),
    ) {
        // The thread that resets need not be the vCPU's, but it is of the same process.
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        reset(
            by_index(tgid, index),
            Indices {
                dirty,
                reset: reset_index,
            },
        );
    }
    0
}

/// Counts the entries that this reset gave back: the way that the ring's reset index went since it was last seen.
///
/// A later VM's ring may stand at the address of an earlier one. Where pushes are counted it shows: the dirty index of one
/// ring advances by as many as its thread has pushed. Elsewhere the entry into `KVM_RUN` has found it out.
#[inline(always)]
fn reset(key: u64, indices: Indices) {
    let Some(ring) = RINGS.get_ptr_mut(&key) else { return };
    // SAFETY: a live element of a preallocated map; KVM serialises the resets of a VM, so there is one writer of all but
    // `dirty_index` where the index counts.
    let ring = unsafe { &mut *ring };
    let Some(thread) = THREADS.get_ptr_mut(&ring.tid) else {
        return;
    };
    // SAFETY: a live element; these two never change.
    let (slot, tgid) = unsafe { ((*thread).slot, (*thread).tgid) };
    if (bpf_get_current_pid_tgid() >> 32) as u32 != tgid {
        // Of a VM that is no more.
        return;
    }
    let given_back = indices.reset.wrapping_sub(ring.reset_index);
    let mut same = given_back <= MAX_RING_ENTRIES;
    if config!(count_pushes) != 0 {
        // A push on another CPU may just be counting, which IN_FLIGHT allows for.
        let pushes = pushed(slot) as u32;
        let drift = indices
            .dirty
            .wrapping_sub(ring.dirty_index)
            .wrapping_sub(pushes.wrapping_sub(ring.pushes)) as i32;
        same &= (-IN_FLIGHT..=IN_FLIGHT).contains(&drift);
        ring.dirty_index = indices.dirty;
        ring.pushes = pushes;
    }
    ring.reset_index = indices.reset;
    // A ring begins at index 0, and its first reset covers everything until then.
    let entries = u64::from(if same { given_back } else { indices.reset });
    // SAFETY: a live element; these two members are written here and where the ring is met.
    unsafe {
        (*thread).reset_entries += entries;
        (*thread).resets += 1;
    }
}
