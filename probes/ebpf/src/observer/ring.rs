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
    index::{self, Indices, given_back, indices_of, ring_at, rings_known, thread_of},
    maps::{Element, LAST, PUSHED, PUSHES, RINGS, add, get, lose, set},
    registers,
    run::field,
    thread::{Seen, now, watched},
};

/// A push that is logged while a reset reads the two counts: how far they may be apart in one ring.
const IN_FLIGHT: i32 = 64;

#[raw_tracepoint(tracepoint = "kvm_dirty_ring_push")]
pub fn push_raw(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(struct kvm_dirty_ring *ring, u32 slot, u64 offset)
    let ring: u64 = ctx.arg(0);
    // SAFETY: just found.
    let Some(last) = LAST.get_ptr_mut(0).map(|last| unsafe { Element::found(last) }) else {
        return 0;
    };
    let changes = rings_known(RINGS_CHANGED);
    let same_ring = get!(last.ring) == ring && get!(last.changes) == changes;
    if same_ring && config!(count_pushes) == 0 && config!(trace_pushes) == 0 {
        return 0;
    }
    let id = bpf_get_current_pid_tgid();
    if !(same_ring && get!(last.id) == id) && !find(last, id, ring, changes) {
        return 0;
    }
    if config!(count_pushes) != 0 {
        count(get!(last.slot));
    }
    if config!(trace_pushes) != 0 {
        let (slot, offset): (u64, u64) = (ctx.arg(1), ctx.arg(2));
        trace(id as u32, slot as u32, offset);
    }
    0
}

/// Another thread, or another ring, than that of this CPU's last push: looks up where it is counted.
#[inline(always)]
fn find(last: Element<Last>, id: u64, ring: u64, changes: u64) -> bool {
    let by_index = config!(count_pushes) == 0;
    let Some((tid, thread)) = watched(seen()) else { return false };
    if get!(thread.ring) != ring {
        if by_index {
            if registers::is_in_other_call() || !index::meet(tid, thread, ring) {
                // Not its own, and yet a page of the trace.
                return true;
            }
        } else if let Some(indices) = indices_of(ring) {
            // This push is in the indices and is yet to be counted.
            let pushes = pushed(get!(thread.slot)) as u32;
            meet(tid, thread, ring, indices, pushes.wrapping_add(1));
        }
    }
    set!(last.id, id);
    set!(last.ring, ring);
    set!(last.slot, get!(thread.slot));
    set!(last.changes, changes);
    true
}

/// Where a thread is that pushes a page: in `KVM_RUN`, or in another call of a vCPU's.
#[inline(always)]
pub fn seen() -> Seen {
    if registers::is_in_other_call() {
        Seen::Outside
    } else {
        Seen::InRun
    }
}

#[inline(always)]
fn count(slot: u64) {
    // SAFETY: just found. Its one writer is the thread that has the slot, with preemption off.
    if let Some(pushed) = PUSHED.get_ptr_mut(slot as u32).map(|pushed| unsafe { Element::found(pushed) }) {
        add!(pushed.pages, 1);
    }
}

#[inline(always)]
fn pushed(slot: u64) -> u64 {
    // SAFETY: just found; its thread may just be counting on another CPU.
    let pushed = PUSHED.get_ptr_mut(slot as u32).map(|pushed| unsafe { Element::found(pushed) });
    pushed.map_or(0, |pushed| get!(pushed.pages))
}

#[tracepoint]
pub fn push_tp(ctx: TracePointContext) -> u32 {
    let Some((tid, thread)) = watched(seen()) else { return 0 };
    count(get!(thread.slot));
    if get!(thread.ring) == 0
        && let (Some(index), Some(dirty), Some(reset)) = (
            field::<u32>(&ctx, config!(push_index_at)),
            field(&ctx, config!(push_dirty_index_at)),
            field(&ctx, config!(push_reset_index_at)),
        )
    {
        let pushes = pushed(get!(thread.slot)) as u32;
        meet(
            tid,
            thread,
            by_index(get!(thread.tgid), index),
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
fn meet(tid: u32, thread: Element<Thread>, ring: u64, indices: Indices, pushes: u32) {
    set!(thread.ring, ring);
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
pub fn trace(tid: u32, slot: u32, offset: u64) {
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
    let Some(ring) = ring_at(key) else { return };
    let Some(thread) = thread_of(get!(ring.tid)) else {
        return;
    };
    if (bpf_get_current_pid_tgid() >> 32) as u32 != get!(thread.tgid) {
        // Of a VM that is no more.
        return;
    }
    let entries = indices.reset.wrapping_sub(get!(ring.reset_index));
    let mut same = entries <= MAX_RING_ENTRIES;
    if config!(count_pushes) != 0 {
        // A push on another CPU may just be counting, which IN_FLIGHT allows for.
        let pushes = pushed(get!(thread.slot)) as u32;
        let drift = indices
            .dirty
            .wrapping_sub(get!(ring.dirty_index))
            .wrapping_sub(pushes.wrapping_sub(get!(ring.pushes))) as i32;
        same &= (-IN_FLIGHT..=IN_FLIGHT).contains(&drift);
        set!(ring.dirty_index, indices.dirty);
        set!(ring.pushes, pushes);
    }
    set!(ring.reset_index, indices.reset);
    // A ring begins at index 0, and its first reset covers everything until then.
    given_back(thread, if same { entries } else { indices.reset }, 1);
}
