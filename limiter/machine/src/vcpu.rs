//! How a vCPU starts: in long mode, at CPL 3.

use dirtyrig_guests::image::Entry;
use kvm_bindings::{kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::Error;

/// PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
/// LME, LMA.
const EFER: u64 = 0x500;

/// Sets a vCPU up to start at `entry` in long mode at CPL 3, whoever made it.
///
/// CPL 3 runs natively everywhere; under kvm-pvm CPL 0 is emulated, instruction by instruction.
///
/// # Errors
/// If the kernel refuses its registers.
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
