//! The quota: counts the pages that a vCPU draws from its budget, and signals its thread on the page that spends it.
//!
//! The signal makes `KVM_RUN` return; who set the budget then sleeps off the debt and sets the next one. While the
//! budget is spent every further page signals again: a signal that somebody else consumed is not the last one.

#![no_std]
#![no_main]

mod memory_slot;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_current_pid_tgid, bpf_send_signal_thread},
    macros::{fentry, kprobe, map, raw_tracepoint, tracepoint},
    maps::{Array, HashMap, PerCpuArray},
    programs::{FEntryContext, ProbeContext, RawTracePointContext, TracePointContext},
};
use dirtyrig_probes_common::{Budget, Drawer, Limited, MAX_THREADS, NO_SLOT, QuotaConfig};
use memory_slot::{Layout, newly_dirty};

#[unsafe(no_mangle)]
static CONFIG: QuotaConfig = QuotaConfig {
    slot_bitmap_at: 0,
    slot_base_at: 0,
};

/// Who is limited, by thread id.
#[map]
static LIMITED: HashMap<u32, Limited> = HashMap::with_max_entries(MAX_THREADS, 0);
/// How often `LIMITED` has changed; raised by the loader after each change. In `.data` and not a map: no look-up.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static GENERATION: u64 = 0;
#[map]
static DRAWERS: PerCpuArray<Drawer> = PerCpuArray::with_max_entries(1, 0);
/// The budgets, mapped into the limiter. Sized by the loader.
#[map]
static BUDGETS: Array<Budget> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[raw_tracepoint(tracepoint = "kvm_dirty_ring_push")]
pub fn quota_raw(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(struct kvm_dirty_ring *ring, u32 slot, u64 offset)
    draw(ctx.arg(0));
    0
}

#[tracepoint]
pub fn quota_tp(_ctx: TracePointContext) -> u32 {
    // The record has no address, but one thread runs one vCPU.
    draw(bpf_get_current_pid_tgid());
    0
}

// Of VMs with a bitmap: (struct kvm *kvm, const struct kvm_memory_slot *memslot, gfn_t gfn)

#[kprobe]
pub fn quota_mark_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(slot), Some(gfn)) = (ctx.arg(1), ctx.arg(2)) {
        mark(slot, gfn);
    }
    0
}

#[fentry(function = "mark_page_dirty_in_slot")]
pub fn quota_mark_fentry(ctx: FEntryContext) -> i32 {
    mark(ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn mark(slot: u64, gfn: u64) {
    // SAFETY: a valid static; volatile because the loader writes it.
    let config = unsafe { core::ptr::read_volatile(&raw const CONFIG) };
    let layout = Layout {
        bitmap_at: config.slot_bitmap_at,
        base_at: config.slot_base_at,
    };
    if newly_dirty(slot, gfn, layout).is_some() {
        // No ring tells the vCPU, but one thread runs one.
        draw(bpf_get_current_pid_tgid());
    }
}

/// Counts one page of `vcpu` to its budget.
///
/// This runs for each page of every vCPU on the host. Calls of helpers are most of what it costs, so it makes none until
/// the budget is spent: a vCPU is told by its ring, and looked up only where another came between or a limit changed.
#[inline(always)]
fn draw(vcpu: u64) {
    let Some(drawer) = DRAWERS.get_ptr_mut(0) else { return };
    // SAFETY: a valid static; volatile because the loader writes it. Read before LIMITED, which changes first: what is
    // looked up is as new as this says.
    let generation = unsafe { core::ptr::read_volatile(&raw const GENERATION) };
    // SAFETY: a live map element of this CPU; programs of these types do not migrate while they run.
    let drawer = unsafe { &mut *drawer };
    if drawer.vcpu != vcpu || drawer.generation != generation {
        let slot = limited().map_or(NO_SLOT, |(slot, _)| u64::from(slot));
        *drawer = Drawer { vcpu, generation, slot };
    }
    let Some(budget) = BUDGETS.get_ptr_mut(drawer.slot as u32) else {
        return;
    };
    // SAFETY: a live element, whose one thread this is; the limiter alone writes `end`, hence volatile.
    let (drawn, end) = unsafe {
        let drawn = (*budget).drawn + 1;
        core::ptr::write_volatile(&raw mut (*budget).drawn, drawn);
        (drawn, core::ptr::read_volatile(&raw const (*budget).end))
    };
    if drawn >= end {
        signal(drawer, budget);
    }
}

/// The slot and the signal of the current thread, if it is limited.
#[inline(always)]
fn limited() -> Option<(u32, u32)> {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let limited = LIMITED.get_ptr(&tid)?;
    // SAFETY: a live element of a preallocated map, replaced as a whole by the loader.
    let limited = unsafe { core::ptr::read_volatile(limited) };
    (limited.tgid == tgid).then_some((limited.slot, limited.signal))
}

/// Signals the current thread, whose page was beyond the end of `budget`.
#[inline(always)]
fn signal(drawer: &mut Drawer, budget: *mut Budget) {
    let Some((_, signal)) = limited().filter(|(slot, _)| u64::from(*slot) == drawer.slot) else {
        // The ring of a vCPU that is no more, at whose address there is another's now: this page was not its.
        // SAFETY: a live element.
        unsafe { (*budget).drawn -= 1 };
        drawer.vcpu = 0;
        return;
    };
    // SAFETY: the helper has no precondition: an invalid signal is refused.
    let sent = unsafe { bpf_send_signal_thread(signal) } == 0;
    // SAFETY: a live element, whose one thread this is.
    unsafe {
        if sent {
            (*budget).signals += 1;
        } else {
            (*budget).refused += 1;
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// bpf_send_signal_thread is open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
