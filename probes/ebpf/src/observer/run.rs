//! `KVM_RUN`: its begin, its end, and the guest's entries and exits within.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use dirtyrig_probes_common::{
    CAUSE_INTERRUPTED, CAUSE_RING_FULL, END_ENTRY, END_RUN, EXIT_KIND_ERRNO, EXIT_KIND_ISA, EXIT_KIND_USERSPACE,
    NO_FIELD, VCPU_ID_FROM_EXIT, VCPU_ID_FROM_NOTHING, VCPU_ID_FROM_RING_EXIT,
};

use crate::{
    config,
    index::{catch_up, change},
    maps::{add, count_exit, get, set},
    thread::{Seen, begin_stall, end_stall, is_watched, now, watched},
};

/// `_IO(KVMIO, 0x41)`.
const KVM_CREATE_VCPU: u64 = 0xAE41;
/// `_IO(KVMIO, 0x80)`.
pub const KVM_RUN: u64 = 0xAE80;
const KVM_EXIT_DIRTY_RING_FULL: u32 = 31;
const EINTR: i32 = 4;

#[raw_tracepoint(tracepoint = "kvm_userspace_exit")]
pub fn userspace_exit_raw(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(__u32 reason, int errno)
    let (reason, errno): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    userspace_exit(reason as u32, errno as i32);
    0
}

#[tracepoint]
pub fn userspace_exit_tp(ctx: TracePointContext) -> u32 {
    let (Some(reason), Some(errno)) = (
        field::<u32>(&ctx, config!(userspace_exit_reason_at)),
        field::<i32>(&ctx, config!(userspace_exit_errno_at)),
    ) else {
        return 0;
    };
    userspace_exit(reason, errno);
    0
}

#[inline(always)]
fn userspace_exit(reason: u32, errno: i32) {
    let Some((tid, thread)) = watched(Seen::InRun) else { return };
    let at = now();
    catch_up(thread);
    add!(thread.userspace_exits, 1);
    let since = get!(thread.run_since_ns);
    if since != 0 {
        add!(thread.run_ns, at.saturating_sub(since));
        set!(thread.run_since_ns, 0);
    }
    // After an error the reason may be that of an earlier exit.
    if errno < 0 {
        count_exit(tid, EXIT_KIND_ERRNO, errno.wrapping_neg() as u32);
        if errno == -EINTR {
            begin_stall(thread, CAUSE_INTERRUPTED, at);
        }
        return;
    }
    count_exit(tid, EXIT_KIND_USERSPACE, reason);
    if reason == KVM_EXIT_DIRTY_RING_FULL {
        add!(thread.ring_full_exits, 1);
        begin_stall(thread, CAUSE_RING_FULL, at);
    }
}

#[tracepoint]
pub fn run_tp(ctx: TracePointContext) -> u32 {
    match field::<u64>(&ctx, config!(ioctl_cmd_at)) {
        Some(KVM_RUN) => {}
        Some(KVM_CREATE_VCPU) => {
            if is_watched() {
                change();
            }
            return 0;
        }
        _ => return 0,
    }
    let Some((tid, thread)) = watched(Seen::Outside) else {
        return 0;
    };
    catch_up(thread);
    let at = now();
    add!(thread.runs, 1);
    set!(thread.run_since_ns, at);
    if let Some(fd) = field::<u64>(&ctx, config!(ioctl_fd_at)) {
        set!(thread.run_fd_plus_one, (fd as u32).wrapping_add(1));
    }
    // Where kvm_entry fires it fired for this thread before the exit that began the stall, and will tell better.
    if get!(thread.entries) == 0 {
        end_stall(tid, thread, END_RUN, at);
    }
    0
}

#[raw_tracepoint(tracepoint = "kvm_entry")]
pub fn entry_raw(_ctx: RawTracePointContext) -> i32 {
    entry();
    0
}

#[tracepoint]
pub fn entry_tp(_ctx: TracePointContext) -> u32 {
    entry();
    0
}

#[inline(always)]
fn entry() {
    let Some((tid, thread)) = watched(Seen::InRun) else { return };
    add!(thread.entries, 1);
    if get!(thread.stalled_since_ns) != 0 {
        end_stall(tid, thread, END_ENTRY, now());
    }
}

// The raw event has pointers and no reason; so a classic tracepoint alone.
#[tracepoint]
pub fn exit_tp(ctx: TracePointContext) -> u32 {
    let Some((tid, thread)) = watched(Seen::InRun) else { return 0 };
    add!(thread.exits, 1);
    let Some(reason) = field::<u32>(&ctx, config!(exit_reason_at)) else {
        return 0;
    };
    let isa = field::<u32>(&ctx, config!(exit_isa_at)).unwrap_or(0);
    count_exit(tid, EXIT_KIND_ISA + isa, reason);
    if get!(thread.vcpu_id_from) == VCPU_ID_FROM_NOTHING
        && let Some(id) = field::<u32>(&ctx, config!(exit_vcpu_id_at))
    {
        set!(thread.vcpu_id, id);
        set!(thread.vcpu_id_from, VCPU_ID_FROM_EXIT);
    }
    0
}

#[tracepoint]
pub fn ring_exit_tp(ctx: TracePointContext) -> u32 {
    let Some((_, thread)) = watched(Seen::InRun) else { return 0 };
    add!(thread.ring_exit_events, 1);
    if let Some(id) = field::<u32>(&ctx, config!(ring_exit_vcpu_id_at)) {
        set!(thread.vcpu_id, id);
        set!(thread.vcpu_id_from, VCPU_ID_FROM_RING_EXIT);
    }
    0
}

/// A field of a classic tracepoint's record; `None` where this kernel has no such field.
#[inline(always)]
pub fn field<T>(ctx: &TracePointContext, at: u32) -> Option<T> {
    if at == NO_FIELD {
        return None;
    }
    // SAFETY: the offset comes from the event's format; the helper checks the address.
    unsafe { ctx.read_at::<T>(at as usize) }.ok()
}
