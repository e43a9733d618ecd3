//! What can go wrong, each with its remedy.

use std::io;

use thiserror::Error;

/// Why the probes could not be attached, or could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No process has the id.
    #[error("there is no process {pid}: it may have ended; `pgrep -a qemu` lists the VMs that run")]
    NoSuchProcess {
        /// The id asked for.
        pid: u32,
    },
    /// The id is that of a thread.
    #[error("{pid} is a thread of process {leader}: observe process {leader}")]
    IsAThread {
        /// The id asked for.
        pid: u32,
        /// Its process.
        leader: u32,
    },
    /// The process has no VM.
    #[error("process {pid} ({name}) has no KVM VM open: give the id of a VMM, such as QEMU, whose VM has started")]
    NoVm {
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// `/proc` did not say what was needed.
    #[error("can't read {path}: run as root, with /proc mounted")]
    Proc {
        /// The file.
        path: String,
        #[source]
        /// Why.
        source: io::Error,
    },
    /// The kernel names processes by other ids than this process sees.
    #[error(
        "this process runs in a PID namespace of its own, where the kernel's process ids don't apply: run it on the \
         host, or in a container with the host's PID namespace (`--pid=host`)"
    )]
    PidNamespace,
    /// The kernel refused.
    #[error(
        "the kernel refused to load eBPF programs: run as root, or give the binary the capabilities \
         (`setcap cap_bpf,cap_perfmon,cap_dac_read_search,cap_sys_ptrace+ep dirtyrig`); in a container add CAP_BPF and \
         CAP_PERFMON"
    )]
    Privilege {
        #[source]
        /// What the kernel said.
        source: io::Error,
    },
    /// The object was not accepted.
    #[error(
        "loading the eBPF object failed; Linux 5.15 or later with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS is needed"
    )]
    Load {
        #[source]
        /// What aya, or the kernel, said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// None of the events could be attached without which there is nothing to tell.
    #[error("KVM's events could not be attached ({reasons}): is KVM there? `modprobe kvm_intel` or `kvm_amd`")]
    NothingAttached {
        /// Why, event by event.
        reasons: String,
    },
    /// Pages that are marked in a dirty bitmap can't be seen.
    #[error(
        "pages that are marked in a dirty bitmap can't be counted here ({reasons}); those of a VM with dirty rings can (QEMU: \
         `-accel kvm,dirty-ring-size=4096`)"
    )]
    NoBitmap {
        /// Why, and what would help.
        reasons: String,
    },
    /// A buffer size that the kernel would refuse.
    #[error("a ring buffer of {bytes} bytes: the size must be a power of two from {page} bytes to 1 GiB")]
    RingBytes {
        /// What was asked for.
        bytes: u32,
        /// The least.
        page: u32,
    },
    /// A map could not be used.
    #[error("can't {operation} the eBPF map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// What was done with it.
        operation: &'static str,
        #[source]
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The budgets could not be mapped.
    #[error("can't map the {slots} budgets into memory")]
    MapBudgets {
        /// How many.
        slots: u32,
        #[source]
        /// What the kernel said.
        source: io::Error,
    },
    /// A number of slots out of range.
    #[error("a quota with {slots} slots: from 1 to {max} are possible")]
    Slots {
        /// What was asked for.
        slots: u32,
        /// The most.
        max: u32,
    },
    /// A slot that the quota does not have.
    #[error("slot {slot} of a quota that has {slots}")]
    NoSuchSlot {
        /// What was asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// A slot that another thread has.
    #[error("slot {slot} is that of thread {thread}: release it first")]
    SlotTaken {
        /// What was asked for.
        slot: u32,
        /// Who has it.
        thread: u32,
    },
    /// A signal that does not exist.
    #[error("signal {signal}: a number from 1 to 64 is expected")]
    NoSuchSignal {
        /// What was asked for.
        signal: i32,
    },
}
