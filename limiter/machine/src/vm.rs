//! The VM itself: its memory slots, its dirty rings, its vCPUs.

use std::{io, sync::Arc};

use dirtyrig_ring::RingSize;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::{Error, memory::GuestMemory};

/// A VM with memory, each of whose vCPUs has a dirty ring.
///
/// Its descriptor, and those of its vCPUs, stay in this crate: the guest runs in memory of ours, which must outlive them.
pub(crate) struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    // The slots point into it: it goes after the descriptor, and fields are dropped in order.
    memory: Arc<GuestMemory>,
}

impl Vm {
    /// Creates a VM over `memory`, whose logged regions are logged in rings of `ring`.
    pub(crate) fn new(memory: Arc<GuestMemory>, ring: RingSize) -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(|error| Error::Open {
            source: io::Error::from_raw_os_error(error.errno()),
        })?;
        let fd = create(&kvm)?;
        dirtyrig_ring::enable(&kvm, &fd, ring)?;
        // SAFETY: the guest writes to it only while a vCPU runs, which the machine's threads alone do; each of them holds on
        // to the memory.
        unsafe { memory.give_to(&fd) }?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self {
            fd: Arc::new(fd),
            cpuid,
            memory,
        })
    }

    /// Creates vCPU `index`.
    pub(crate) fn create_vcpu(&self, index: usize) -> Result<VcpuFd, Error> {
        let fd = self
            .fd
            .create_vcpu(index as u64)
            .map_err(Error::ioctl("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&self.cpuid).map_err(Error::ioctl("KVM_SET_CPUID2"))?;
        Ok(fd)
    }

    /// The VM's descriptor, for the limiter that resets its rings.
    pub(crate) fn fd(&self) -> Arc<VmFd> {
        Arc::clone(&self.fd)
    }

    /// The guest's memory.
    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }
}

fn create(kvm: &Kvm) -> Result<VmFd, Error> {
    loop {
        match kvm.create_vm() {
            // A signal can end the creation; nothing was made.
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(Error::ioctl("KVM_CREATE_VM")),
        }
    }
}
