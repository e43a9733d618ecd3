//! One vCPU: long mode, CPL 3, and the ways it leaves the guest.

use std::sync::Arc;

use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::Error;
use super::caps::RingSize;
use super::kick::Kickable;
use super::memory::GuestMemory;
use super::ring::DirtyRing;

/// PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
/// LME, LMA.
const EFER: u64 = 0x500;

/// Where a vCPU starts to run. All addresses are guest physical and identity-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// First argument: the block that the program shares with the host.
    pub rdi: u64,
    /// Top of the stack.
    pub rsp: u64,
    /// Root of the page tables.
    pub cr3: u64,
}

/// Why a vCPU left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its dirty ring reached the soft limit: it can't enter again before entries are harvested and reset.
    RingFull,
    /// A signal: a kick, a deadline, or a budget that is spent.
    Interrupted,
}

/// A vCPU. It is run by one thread at a time.
pub struct Vcpu {
    index: usize,
    fd: VcpuFd,
    // The guest runs in it.
    _memory: Arc<GuestMemory>,
}

impl Vcpu {
    pub(super) fn new(index: usize, fd: VcpuFd, memory: Arc<GuestMemory>) -> Self {
        Self {
            index,
            fd,
            _memory: memory,
        }
    }

    /// Its index in the VM.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Ticks of the guest's time-stamp counter in a second.
    pub fn tsc_hz(&self) -> Result<u64, Error> {
        let khz = self.fd.get_tsc_khz().map_err(Error::ioctl("KVM_GET_TSC_KHZ"))?;
        Ok(u64::from(khz) * 1000)
    }

    /// Maps its dirty ring; the VM was given rings of `size`.
    pub fn map_ring(&self, size: RingSize) -> Result<DirtyRing, Error> {
        DirtyRing::map(&self.fd, size)
    }

    /// Sets it up to start at `entry` in long mode at CPL 3.
    ///
    /// CPL 3 runs natively everywhere; under kvm-pvm CPL 0 is emulated, instruction by instruction.
    pub fn start_at(&self, entry: Entry) -> Result<(), Error> {
        start_in_long_mode(&self.fd, entry)
    }

    /// Ties it to the calling thread, which is to run it: from here on a kick of that thread reaches the vCPU.
    pub fn bind(mut self) -> BoundVcpu {
        let kickable = Kickable::new(&raw mut self.fd.get_kvm_run().immediate_exit);
        BoundVcpu {
            _kickable: kickable,
            vcpu: self,
        }
    }
}

/// A vCPU on the thread that runs it.
pub struct BoundVcpu {
    // First: it points into the vCPU's pages, and fields are dropped in order.
    _kickable: Kickable,
    vcpu: Vcpu,
}

impl BoundVcpu {
    /// Runs the guest until it exits.
    ///
    /// Whoever wants to be noticed sets his request, then kicks; so look for requests after `run` has returned and before
    /// it is called again: a kick in between makes the next `run` return at once.
    pub fn run(&mut self) -> Result<Exit, Error> {
        let Vcpu { index, fd, .. } = &mut self.vcpu;
        let exit = match fd.run() {
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => Ok(Exit::RingFull),
            Ok(other) => Err(Error::UnexpectedExit {
                vcpu: *index,
                exit: format!("{other:?}"),
            }),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
            Err(source) => Err(Error::Ioctl {
                operation: "KVM_RUN",
                source,
            }),
        };
        fd.set_kvm_immediate_exit(0);
        exit
    }
}

/// Sets a vCPU up to start at `entry` in long mode at CPL 3, whoever made it.
pub fn start_in_long_mode(fd: &VcpuFd, entry: Entry) -> Result<(), Error> {
    let mut sregs = fd.get_sregs().map_err(Error::ioctl("KVM_GET_SREGS"))?;
    user_mode(&mut sregs, entry.cr3);
    fd.set_sregs(&sregs).map_err(Error::ioctl("KVM_SET_SREGS"))?;
    let mut regs = fd.get_regs().map_err(Error::ioctl("KVM_GET_REGS"))?;
    regs.rip = entry.rip;
    regs.rdi = entry.rdi;
    regs.rsp = entry.rsp;
    // Bit 1 is always set; interrupts stay off.
    regs.rflags = 2;
    fd.set_regs(&regs).map_err(Error::ioctl("KVM_SET_REGS"))
}

fn user_mode(sregs: &mut kvm_sregs, cr3: u64) {
    let segment = |type_, l, db, selector| kvm_segment {
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
    // Execute/read, accessed, 64-bit; the selectors are those of Linux' user segments.
    sregs.cs = segment(11, 1, 0, 0x33);
    // Read/write, accessed.
    let data = segment(3, 0, 1, 0x2b);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = CR0;
    sregs.cr3 = cr3;
    sregs.cr4 = CR4;
    sregs.efer = EFER;
}
