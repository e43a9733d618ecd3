//! The VM's file descriptor: its dirty rings, memory slots, vCPUs, and the reset ioctl.

use std::{os::fd::AsRawFd, sync::Arc};

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VmFd};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::Error;
use super::caps::{RingCapability, RingSize};
use super::memory::GuestMemory;
use super::vcpu::Vcpu;

nix::ioctl_none!(
    /// `KVM_RESET_DIRTY_RINGS`: takes back every entry marked RESET, of all rings of the VM; returns their number.
    kvm_reset_dirty_rings,
    0xAE,
    0xC7
);

/// A VM with memory and, if asked for, a dirty ring for each vCPU.
pub struct Vm {
    fd: Arc<VmFd>,
    cpuid: CpuId,
    ring: Option<RingSize>,
    // The slots point into it: it goes after the descriptor, and fields are dropped in order.
    memory: Arc<GuestMemory>,
}

impl Vm {
    /// Creates a VM over `memory`; with `ring`, each vCPU gets a dirty ring and the logged regions are logged.
    pub fn new(kvm: &Kvm, memory: Arc<GuestMemory>, ring: Option<RingSize>) -> Result<Self, Error> {
        let fd = create(kvm)?;
        if let Some(size) = ring {
            enable_ring(kvm, &fd, size)?;
        }
        for (slot, (region, host)) in memory.slots().enumerate() {
            let logged = region.logged && ring.is_some();
            let slot = kvm_userspace_memory_region {
                slot: u32::try_from(slot).expect("a guest has a handful of regions"),
                flags: if logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: region.gpa,
                memory_size: region.bytes,
                userspace_addr: host,
            };
            // SAFETY: the host range is a mapping of `memory`, which `self` keeps until after the VM's descriptor.
            unsafe { fd.set_user_memory_region(slot) }.map_err(Error::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::ioctl("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self {
            fd: Arc::new(fd),
            cpuid,
            ring,
            memory,
        })
    }

    /// Creates vCPU `index`.
    pub fn create_vcpu(&self, index: usize) -> Result<Vcpu, Error> {
        let fd = self
            .fd
            .create_vcpu(index as u64)
            .map_err(Error::ioctl("KVM_CREATE_VCPU"))?;
        fd.set_cpuid2(&self.cpuid).map_err(Error::ioctl("KVM_SET_CPUID2"))?;
        Ok(Vcpu::new(index, fd, Arc::clone(&self.memory)))
    }

    /// The VM's descriptor, for what resets its rings.
    pub fn fd(&self) -> Arc<VmFd> {
        Arc::clone(&self.fd)
    }

    /// The size of the vCPUs' rings, if they have one.
    pub fn ring(&self) -> Option<RingSize> {
        self.ring
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
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

/// Gives every vCPU that `fd` will have a dirty ring of `size`: called before the first one is created.
pub fn enable_ring(kvm: &Kvm, fd: &VmFd, size: RingSize) -> Result<(), Error> {
    let RingCapability {
        capability,
        max_entries,
    } = RingCapability::of(kvm)?;
    if size.entries() > max_entries {
        return Err(Error::RingSize {
            entries: size.entries(),
            min: super::caps::MIN_RING_ENTRIES,
            max: max_entries,
        });
    }
    let enable = kvm_enable_cap {
        cap: capability,
        args: [size.bytes(), 0, 0, 0],
        ..Default::default()
    };
    fd.enable_cap(&enable)
        .map_err(Error::ioctl("KVM_ENABLE_CAP of the dirty ring"))
}

/// Takes back the `released` ring entries of the VM that were marked since the last reset.
///
/// Nobody may release entries of any ring of this VM meanwhile: see [`Rings`](crate::rings::Rings). Another number of
/// entries than `released` is an error.
///
/// All signals are blocked meanwhile. Since Linux 6.16 a pending signal ends the reset early, and then, it seems, the kernel
/// has taken back entries of a batch whose pages it hasn't write-protected yet: what the guest writes there next is never
/// logged. Seen on 6.18, about once in 100,000 pages where vCPU threads that are being kicked reset their own ring.
pub fn reset_dirty_rings(vm: &VmFd, released: u64) -> Result<(), Error> {
    let failed = |errno: nix::Error| Error::Ioctl {
        operation: "KVM_RESET_DIRTY_RINGS",
        source: kvm_ioctls::Error::new(errno as i32),
    };
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    // SAFETY: the descriptor is a VM's, and the ioctl takes no argument and writes no memory of ours but the rings.
    let result = unsafe { kvm_reset_dirty_rings(vm.as_raw_fd()) };
    before.thread_set_mask().map_err(failed)?;
    let reset = u64::from(result.map_err(failed)?.unsigned_abs());
    if reset == released {
        Ok(())
    } else {
        Err(Error::ResetMismatch { released, reset })
    }
}
