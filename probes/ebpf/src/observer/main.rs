//! The observer: what each vCPU thread does, seen at KVM's tracepoints.
//!
//! | program | event | question it answers |
//! |---|---|---|
//! | `push_*` | `kvm_dirty_ring_push` | which vCPU has which ring; which pages |
//! | `mark_*` | the function `mark_page_dirty_in_slot` | pages of a VM with a dirty bitmap |
//! | `look` | none, the reader runs it | how much a vCPU has dirtied by now |
//! | `reset_*` | `kvm_dirty_ring_reset` | how many entries came back |
//! | `ring_exit_tp` | `kvm_dirty_ring_exit` | which thread is which vCPU |
//! | `userspace_exit_*` | `kvm_userspace_exit` | why `KVM_RUN` returned; a stall begins |
//! | `run_tp` | `sys_enter_ioctl` | `KVM_RUN` again: a stall ends where `kvm_entry` does not fire; a vCPU is created |
//! | `entry_*` | `kvm_entry` | the guest runs again: a stall ends |
//! | `exit_tp` | `kvm_exit` | why the guest left guest mode |
//!
//! `*_raw` are raw tracepoints (the event's own arguments, cheapest, no offsets, modules included), `*_tp` classic
//! ones, whose offsets come through [`CONFIG`]. The loader attaches the best that the kernel takes.
//!
//! The return of `KVM_RUN` is taken from `kvm_userspace_exit`, which fires inside it on every path, so the return of
//! every other `ioctl` on the host costs nothing.

#![no_std]
#![no_main]
// For `atomic`.
#![feature(asm_experimental_arch)]

#[path = "../atomic.rs"]
mod atomic;
#[path = "../memory_slot.rs"]
mod memory_slot;
mod index;
mod maps;
mod mark;
mod registers;
mod ring;
mod run;
mod thread;

use dirtyrig_probes_common::Config;

#[unsafe(no_mangle)]
static CONFIG: Config = Config {
    filter: 0,
    trace_pushes: 0,
    count_pushes: 0,
    task_regs: 0,
    slot_bitmap_at: 0,
    slot_base_at: 0,
    slot_id_at: 0,
    slot_space_at: 0,
    userspace_exit_reason_at: 0,
    userspace_exit_errno_at: 0,
    push_index_at: 0,
    push_dirty_index_at: 0,
    push_reset_index_at: 0,
    push_slot_at: 0,
    push_offset_at: 0,
    reset_index_at: 0,
    reset_dirty_index_at: 0,
    reset_reset_index_at: 0,
    ring_exit_vcpu_id_at: 0,
    exit_reason_at: 0,
    exit_isa_at: 0,
    exit_vcpu_id_at: 0,
    ioctl_fd_at: 0,
    ioctl_cmd_at: 0,
};

/// One of the constants as the loader set them. The map behind them is frozen, so the verifier drops what they switch off.
macro_rules! config {
    ($member:ident) => {{
        // SAFETY: a member of a valid static; volatile because the loader writes it after compilation.
        unsafe { core::ptr::read_volatile(&raw const crate::CONFIG.$member) }
    }};
}
pub(crate) use config;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

// Helpers such as bpf_probe_read_kernel and bpf_ktime_get_ns are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
