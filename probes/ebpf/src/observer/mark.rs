//! Pages of VMs with a dirty bitmap: every one that a vCPU dirties passes `mark_page_dirty_in_slot`, before its bit is set. One whose
//! bit is set already was dirtied in this pass, between two readings of the bitmap, and doesn't count again.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{
    config,
    maps::{Element, PUSHED, add, get},
    memory_slot::{Layout, newly_dirty, read},
    ring::{seen, trace},
    thread::watched,
};

#[kprobe]
pub fn mark_kprobe(ctx: ProbeContext) -> u32 {
    // (struct kvm *kvm, const struct kvm_memory_slot *memslot, gfn_t gfn)
    if let (Some(slot), Some(gfn)) = (ctx.arg(1), ctx.arg(2)) {
        mark(slot, gfn);
    }
    0
}

#[fentry(function = "mark_page_dirty_in_slot")]
pub fn mark_fentry(ctx: FEntryContext) -> i32 {
    mark(ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn mark(slot: u64, gfn: u64) {
    let layout = Layout {
        bitmap_at: config!(slot_bitmap_at),
        base_at: config!(slot_base_at),
    };
    let Some(page) = newly_dirty(slot, gfn, layout) else { return };
    let Some((tid, thread)) = watched(seen()) else { return };
    let index = get!(thread.slot) as u32;
    // SAFETY: just found. Its one writer is the thread that has the slot, with preemption off.
    if let Some(pushed) = PUSHED.get_ptr_mut(index).map(|pushed| unsafe { Element::found(pushed) }) {
        add!(pushed.marked, 1);
    }
    if config!(trace_pushes) != 0
        && let (Some(id), Some(space)) = (
            read::<u16>(slot + u64::from(config!(slot_id_at))),
            read::<u16>(slot + u64::from(config!(slot_space_at))),
        )
    {
        trace(tid, u32::from(space) << 16 | u32::from(id), page);
    }
}
