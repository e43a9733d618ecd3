//! Why a VM can't be limited from outside, each with its remedy.

use std::io;

use dirtyrig_probes::identity::NumberKind;

use super::fault::listed;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The probes say why: no such process, no VM, no privilege.
    #[error(transparent)]
    Probes(#[from] dirtyrig_probes::Error),
    /// dirtyrig itself.
    #[error("process {pid} is dirtyrig itself, which can't stop its own threads: give the id of a VMM, such as QEMU")]
    Itself {
        /// Its id.
        pid: u32,
    },
    /// Its VM logs nothing in a ring.
    #[error(
        "the VM of process {pid} has no dirty ring, and only VMs with rings can be held: start it with one (QEMU: `-accel \
         kvm,dirty-ring-size=4096`)"
    )]
    NoDirtyRing {
        /// The VMM.
        pid: u32,
    },
    /// No such index.
    #[error("vCPU {vcpu} is unknown: by {kind} this VM has {}", listed(known))]
    UnknownVcpu {
        /// The number that was given.
        vcpu: usize,
        /// Those that there are.
        known: Vec<usize>,
        /// What these numbers are.
        kind: NumberKind,
    },
    /// Whose thread that is nobody knows.
    #[error(
        "which thread runs vCPU {vcpu} is not known, so another might be limited: limit all vCPUs, or the VM; the kernel \
         tells in debugfs, or when the vCPU enters KVM_RUN"
    )]
    Guessed {
        /// The number that was given.
        vcpu: usize,
    },
    /// Somebody else traces the thread.
    #[error(
        "thread {thread} is traced by process {tracer} ({name}), and a thread has one tracer at a time: \
         end that debugger, strace or other limiter, or let it detach"
    )]
    Held {
        /// The thread.
        thread: u32,
        /// Who traces it.
        tracer: u32,
        /// The name of that process.
        name: String,
    },
    /// The kernel refuses.
    #[error(
        "thread {thread} may not be traced: run as root, or give the binary the capability \
         (`setcap cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace+ep dirtyrig`); \
         `/proc/sys/kernel/yama/ptrace_scope` is {scope}, and at 3 nobody may"
    )]
    NotPermitted {
        /// The thread.
        thread: u32,
        /// What Yama is set to.
        scope: String,
        #[source]
        /// What the kernel said.
        source: io::Error,
    },
    /// No signal would stop it.
    #[error(
        "thread {thread} of vCPU {vcpu} blocks every signal that could stop it (blocked {blocked:#x}, handled \
         {caught:#x}): dirtyrig needs SIGURG or SIGWINCH, unhandled, or SIGUSR1, SIGUSR2 or a real-time signal that the \
         VMM handles, unblocked"
    )]
    NoSignal {
        /// The vCPU.
        vcpu: usize,
        /// Its thread.
        thread: u32,
        /// Mask of the blocked ones.
        blocked: u64,
        /// Mask of those that have a handler.
        caught: u64,
    },
    /// The VM has ended, or the limiter was stopped.
    #[error("the VM is not limited any more: it has ended, or the limiter has")]
    Ended,
    /// A call of the system failed.
    #[error("can't {operation}")]
    System {
        /// What was done.
        operation: &'static str,
        #[source]
        /// What the kernel said.
        source: io::Error,
    },
}

impl OutsideError {
    /// Whether this machine or user lacks what limiting from outside needs, whatever the VM.
    pub fn is_requirement(&self) -> bool {
        use dirtyrig_probes::Error;
        matches!(
            self,
            Self::NotPermitted { .. }
                | Self::Probes(
                    Error::Privilege { .. } | Error::Load { .. } | Error::NothingAttached { .. } | Error::PidNamespace
                )
        )
    }
}
