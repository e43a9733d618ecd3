//! Which system call the current thread is in. So a vCPU that was in `KVM_RUN` before the probes came is told from a thread that
//! pushes pages by another of a vCPU's calls, and by its descriptor.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_probe_read_kernel, generated::{bpf_get_current_task_btf, bpf_task_pt_regs}},
};

use crate::{config, run::KVM_RUN};

/// The kernel's `struct pt_regs` on x86-64, from `rsi` on: a layout of its interface to debuggers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Registers {
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
}

/// Where `rsi` is in it.
const FROM: usize = 13 * 8;
/// The number of the system call `ioctl`.
const IOCTL: u64 = 16;

/// The descriptor of the `KVM_RUN` that this thread is in; `None` if it is in none, or where that can't be told.
#[inline(always)]
pub fn run_descriptor() -> Option<u32> {
    let registers = registers()?;
    (registers.orig_rax == IOCTL && registers.rsi == KVM_RUN).then_some(registers.rdi as u32)
}

/// Whether this thread is in another system call than `KVM_RUN`, for all that can be told.
#[inline(always)]
pub fn is_in_other_call() -> bool {
    registers().is_some_and(|registers| registers.orig_rax != IOCTL || registers.rsi != KVM_RUN)
}

#[inline(always)]
fn registers() -> Option<Registers> {
    if config!(task_regs) == 0 {
        return None;
    }
    // SAFETY: the helpers have no precondition; the second takes what the first returns.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast::<task_struct>()) } as usize;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((registers + FROM) as *const Registers) }.ok()
}
