//! The quota: counts a vCPU's budget of pages down, one a push, and signals its thread on the page that spends it.
//!
//! The signal makes `KVM_RUN` return; who set the budget then sleeps off the debt and sets the next one. While the
//! budget is spent every further page signals again: a signal that somebody else consumed is not the last one.

#![no_std]
#![no_main]
// For the two atomic additions: `core` offers none on a target without compare-and-swap.
#![feature(asm_experimental_arch)]

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_current_pid_tgid, bpf_send_signal_thread},
    macros::{map, raw_tracepoint, tracepoint},
    maps::{Array, HashMap},
    programs::{RawTracePointContext, TracePointContext},
};
use dirtyrig_probes_common::{Budget, Limited, MAX_THREADS};

/// Who is limited, by thread id.
#[map]
static LIMITED: HashMap<u32, Limited> = HashMap::with_max_entries(MAX_THREADS, 0);
/// The budgets, mapped into the limiter. Sized by the loader.
#[map]
static BUDGETS: Array<Budget> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[raw_tracepoint(tracepoint = "kvm_dirty_ring_push")]
pub fn quota_raw(_ctx: RawTracePointContext) -> i32 {
    draw();
    0
}

#[tracepoint]
pub fn quota_tp(_ctx: TracePointContext) -> u32 {
    draw();
    0
}

#[inline(always)]
fn draw() {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let Some(limited) = LIMITED.get_ptr(&tid) else { return };
    // SAFETY: a live element of a preallocated map, replaced as a whole by the loader.
    let Limited {
        tgid: owner,
        slot,
        signal,
        ..
    } = unsafe { core::ptr::read_volatile(limited) };
    if owner != tgid {
        return;
    }
    let Some(budget) = BUDGETS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: live members of the element. The limiter and the vCPUs that share the slot use atomics on them as well.
    let before = unsafe { fetch_add((&raw mut (*budget).left).cast(), -1) };
    // SAFETY: as above.
    unsafe { fetch_add(&raw mut (*budget).drawn, 1) };
    if before <= 1 {
        // SAFETY: the helper has no precondition: an invalid signal is refused.
        let sent = unsafe { bpf_send_signal_thread(signal) } == 0;
        // SAFETY: as above.
        unsafe {
            fetch_add(
                if sent {
                    &raw mut (*budget).signals
                } else {
                    &raw mut (*budget).refused
                },
                1,
            )
        };
    }
}

/// Adds to `*count` and returns what it was: sequentially consistent, the only order that the kernel's JIT has.
///
/// # Safety
/// `count` must point into a live map element, whose other users are atomic too.
#[inline(always)]
unsafe fn fetch_add(count: *mut u64, by: i64) -> i64 {
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

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// bpf_send_signal_thread is open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
