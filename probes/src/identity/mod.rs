//! Who is who: which thread is which vCPU, and which process is which VM.
//!
//! Three numbers look alike and are not:
//!
//! | number | who gives it | gaps |
//! |---|---|---|
//! | KVM's id | the VMM to `KVM_CREATE_VCPU`; on x86 the APIC ID. The kernel shows it as `anon_inode:kvm-vcpu:N` | where cores or threads are no power of two, and where vCPUs are plugged |
//! | the VMM's index | the VMM, for its own commands (QEMU: `cpu-index`). It is in a thread's name, `CPU 3/KVM`, if the VMM names its threads (QEMU: `debug-threads=on`, which libvirt always sets) | where vCPUs are plugged |
//! | the place in a list | nobody | none, which is why it is no name of a vCPU |
//!
//! Here the key is the *thread*. KVM's id is a fact about it, known from the kernel ([`Evidence`]); the index is a label
//! that the VMM wrote, and names can mislead: [`NumberKind`] says which of the two a number shown is. Nothing in `/proc`
//! is taken for UTF-8 that the kernel doesn't promise to be ([`proc_text`]): a thread's name has 15 bytes, and may end in
//! the middle of a letter.

mod bind;
mod debugfs;
mod known;
mod labels;
mod numbers;
mod proc;
mod vm;

pub use bind::{VcpuThread, vcpu_threads};
pub use labels::index_in_thread_name;
pub use numbers::{Number, NumberKind, Numbers};
pub use proc::{proc_text, process_name, started};
pub use vm::{NoSuchVm, Vm, find_vm, vm_of, vms};

pub(crate) use known::{Identities, Seen};

/// Which vCPU a thread runs, by the two numbers that a vCPU has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VcpuId {
    /// KVM's id.
    pub kvm: Option<KvmId>,
    /// The VMM's index, as the thread's name has it.
    pub index: Option<u32>,
}

impl VcpuId {
    /// KVM's id without what says so.
    pub fn kvm_id(self) -> Option<u32> {
        self.kvm.map(|kvm| kvm.id)
    }
}

/// KVM's id of a vCPU, and what says that a thread runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvmId {
    /// The id.
    pub id: u32,
    /// What says so.
    pub evidence: Evidence,
}

/// What says that a thread runs the vCPU with a KVM id, best first. All but the last come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Evidence {
    /// `kvm_dirty_ring_exit` named the vCPU on this thread.
    RingExit,
    /// `kvm_exit` named the vCPU on this thread.
    Exit,
    /// The thread called `KVM_RUN` on a descriptor that the kernel calls `kvm-vcpu:N`.
    Descriptor,
    /// KVM's own note of which thread last ran the vCPU, in debugfs.
    Debugfs,
    /// Nothing but the order: as many threads are left as vCPUs, and VMMs start them in the order of the ids.
    Order,
}

impl Evidence {
    /// Whether it is a guess.
    pub fn is_guess(self) -> bool {
        self == Self::Order
    }
}
