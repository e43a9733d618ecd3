//! A VM of one vCPU that shows every single access of a guest program.
//!
//! A page of the region that has no memory behind it makes each access to it an MMIO exit: the program's accesses then
//! come out one by one, in order, with their values, however they repeat. Pages that do have memory are written without
//! an exit, as in real use. So a run always ends at a known access, without a clock.

use std::io::ErrorKind;

use dirtyrig_guests::{
    PAGE_SIZE, Program, Region, VcpuBlock,
    image::{Entry, LOW_MEMORY_BYTES, LowMemory, REGION_BASE},
};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Where a test may put a replay table, or a copy of a program: low memory that the image leaves free.
pub(crate) const SPARE_GPA: u64 = 0x30_0000;

const MSR_IA32_TSC: u32 = 0x10;

/// One access that the guest made to a page without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write { page: u64, value: u64 },
    Read { page: u64 },
}

impl Access {
    pub(crate) fn page(self) -> u64 {
        match self {
            Self::Write { page, .. } | Self::Read { page } => page,
        }
    }
}

/// Its fields are dropped in this order: the vCPU, then the VM, and only then the memory behind its slots.
pub(crate) struct Vm {
    vcpu: VcpuFd,
    _fd: VmFd,
    memory: GuestMemoryMmap,
}

impl Vm {
    /// A VM whose vCPU is about to enter `program`; its block is all zero. The first `backed_pages` of the region have
    /// memory.
    pub(crate) fn new(program: &Program, backed_pages: u64) -> Self {
        let low = LowMemory::build(std::slice::from_ref(program), REGION_BASE + (1 << 30)).unwrap();
        let region = (GuestAddress(REGION_BASE), (backed_pages * PAGE_SIZE) as usize);
        let ranges: Vec<_> = std::iter::once((GuestAddress(0), LOW_MEMORY_BYTES as usize))
            .chain((backed_pages > 0).then_some(region))
            .collect();
        let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
        memory.write_slice(&low.bytes, GuestAddress(0)).unwrap();

        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        for (slot, &(gpa, bytes)) in ranges.iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: gpa.0,
                memory_size: bytes as u64,
                userspace_addr: memory.get_host_address(gpa).unwrap() as u64,
            };
            // SAFETY: the range is mapped for as long as `memory` lives, which outlives the VM (see `Vm`); the slots
            // don't overlap.
            unsafe { vm.set_user_memory_region(slot) }.unwrap();
        }
        let vcpu = vm.create_vcpu(0).unwrap();
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap())
            .unwrap();
        let mut this = Self { vcpu, _fd: vm, memory };
        this.enter_at(low.entries[0]);
        this
    }

    /// Sets the vCPU's registers for an entry at CPL 3 in long mode.
    pub(crate) fn enter_at(&mut self, entry: Entry) {
        let segment = |selector, type_, l, db| kvm_segment {
            base: 0,
            limit: u32::MAX,
            selector,
            type_,
            present: 1,
            dpl: 3,
            db,
            s: 1,
            l,
            g: 1,
            ..Default::default()
        };
        let mut sregs = self.vcpu.get_sregs().unwrap();
        sregs.cs = segment(0x33, 11, 1, 0);
        let data = segment(0x2b, 3, 0, 1);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.cr0 = 0x8005_0033;
        sregs.cr3 = entry.cr3;
        sregs.cr4 = 0x20;
        sregs.efer = 0x500;
        self.vcpu.set_sregs(&sregs).unwrap();
        let mut regs = self.vcpu.get_regs().unwrap();
        (regs.rip, regs.rdi, regs.rsp, regs.rflags) = (entry.rip, entry.rdi, entry.rsp, 2);
        self.vcpu.set_regs(&regs).unwrap();
    }

    /// The vCPU's block.
    pub(crate) fn block(&self) -> &VcpuBlock {
        block_in(&self.memory)
    }

    /// The guest's memory, which other threads may look at while the vCPU runs.
    pub(crate) fn memory(&self) -> GuestMemoryMmap {
        self.memory.clone()
    }

    /// Runs until the guest touches a page that has no memory.
    pub(crate) fn run(&mut self) -> Access {
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::MmioWrite(gpa, data)) => {
                    return Access::Write {
                        page: page_of(gpa),
                        value: u64::from_le_bytes(data.try_into().unwrap()),
                    };
                }
                Ok(VcpuExit::MmioRead(gpa, data)) => {
                    assert_eq!(data.len(), 8, "at {gpa:#x}");
                    data.fill(0);
                    return Access::Read { page: page_of(gpa) };
                }
                Ok(exit) => panic!("a guest program made an exit: {exit:?}"),
                Err(error) if std::io::Error::from(error).kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("KVM_RUN: {error}"),
            }
        }
    }

    /// The next `n` accesses.
    pub(crate) fn accesses(&mut self, n: usize) -> Vec<Access> {
        (0..n).map(|_| self.run()).collect()
    }

    /// The first word of a page of the region that has memory.
    pub(crate) fn word(&self, page: u64) -> u64 {
        self.memory
            .read_obj(GuestAddress(REGION_BASE + page * PAGE_SIZE))
            .unwrap()
    }

    /// Sets the first word of a page of the region that has memory.
    pub(crate) fn set_word(&self, page: u64, value: u64) {
        let gpa = GuestAddress(REGION_BASE + page * PAGE_SIZE);
        self.memory.write_obj(value, gpa).unwrap();
    }

    /// Puts bytes into low memory.
    pub(crate) fn put(&self, gpa: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    /// The guest's time stamp counter.
    pub(crate) fn tsc(&self) -> u64 {
        let index = kvm_msr_entry {
            index: MSR_IA32_TSC,
            ..Default::default()
        };
        let mut msrs = Msrs::from_entries(&[index]).unwrap();
        assert_eq!(self.vcpu.get_msrs(&mut msrs).unwrap(), 1, "the TSC can't be read");
        msrs.as_slice()[0].data
    }

    /// Ticks of the guest's time stamp counter in a second.
    pub(crate) fn tsc_hz(&self) -> u64 {
        u64::from(self.vcpu.get_tsc_khz().unwrap()) * 1000
    }
}

/// The block of vCPU 0.
pub(crate) fn block_in(memory: &GuestMemoryMmap) -> &VcpuBlock {
    let gpa = GuestAddress(LowMemory::block_gpa(0));
    let block = memory.get_host_address(gpa).unwrap().cast_const();
    assert!(block.addr() % align_of::<VcpuBlock>() == 0);
    #[expect(clippy::cast_ptr_alignment, reason = "checked in the line above")]
    let block = block.cast::<VcpuBlock>();
    // SAFETY: the block lies within the low memory, is aligned (checked) and stays mapped as long as `memory` lives.
    // It is made of atomics alone, which the guest may change at any time.
    unsafe { &*block }
}

/// A region of `pages` pages where the rig's regions start.
pub(crate) fn region(pages: u64) -> Region {
    Region {
        gpa: REGION_BASE,
        pages,
    }
}

fn page_of(gpa: u64) -> u64 {
    assert!(
        gpa >= REGION_BASE && gpa % PAGE_SIZE == 0,
        "an access outside the region, or not to a page's first word: {gpa:#x}"
    );
    (gpa - REGION_BASE) / PAGE_SIZE
}
