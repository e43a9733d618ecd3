//! Pages that Linux loses when a signal is pending during `KVM_RESET_DIRTY_RINGS` (seen on 6.18; docs/upstream):
//! `cargo run --release -p dirtyrig-ring --example signal_in_reset [blocked]`.
//!
//! A guest writes the same 3,000 pages round and round. After a reset each of them is write-protected, so that its next write is
//! logged. The guest is let run until it has written every page again, and those that its ring does not have are counted. With
//! `blocked` the same is done with signals blocked during the reset, as this crate does it.
use std::{error::Error, os::fd::AsRawFd as _, sync::atomic::Ordering};

use dirtyrig_guests::image::{LowMemory, REGION_BASE};
use dirtyrig_guests::{Program, Region as Pattern};
use dirtyrig_machine::{memory::GuestMemory, memory::HugePages, memory::Region, start_in_long_mode};
use dirtyrig_ring::{DirtyRing, RingSize, enable, reset};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VmFd};
use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

const PAGES: u64 = 3000;
const ROUNDS: u32 = 20;

nix::ioctl_none!(
    /// Takes back what was released; how many entries that was.
    kvm_reset_dirty_rings, 0xAE, 0xC7);

extern "C" fn nothing(_: libc::c_int) {}

/// Sends SIGALRM every so many microseconds; 0 ends it.
fn signal_every(micros: libc::suseconds_t) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: micros,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the timer is ours, and the kernel only reads it.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!(result, 0, "a time that is valid");
}

/// Resets with signals coming in; how often it was cut short.
fn reset_under_signals(vm: &VmFd, released: u64) -> Result<u32, Errno> {
    signal_every(20);
    let (mut taken, mut cut_short) = (0, 0);
    while taken < released {
        // SAFETY: the descriptor is a VM's, and the ioctl takes no argument.
        match unsafe { kvm_reset_dirty_rings(vm.as_raw_fd()) } {
            Ok(count) => taken += u64::from(count.unsigned_abs()),
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other),
        }
        cut_short += u32::from(taken < released);
    }
    Ok(cut_short)
}

fn main() -> Result<(), Box<dyn Error>> {
    let is_blocked = std::env::args().nth(1).is_some_and(|argument| argument == "blocked");
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let size = RingSize::new(4096)?;
    enable(&kvm, &vm, size)?;
    let guest = LowMemory::build(&[Program::Sequential], REGION_BASE + PAGES * 4096)?;
    let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
    let regions = [
        region(0, guest.bytes.len() as u64, false),
        region(REGION_BASE, PAGES * 4096, true),
    ];
    let memory = GuestMemory::populated(&regions, HugePages::Never)?;
    memory.write(0, &guest.bytes)?;
    // SAFETY: the memory outlives the VM's last run.
    unsafe { memory.give_to(&vm) }?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    start_in_long_mode(&vcpu, guest.entries[0])?;
    let block = memory.block(LowMemory::block_gpa(0))?;
    let pattern = Pattern {
        gpa: REGION_BASE,
        pages: PAGES,
    };
    Program::Sequential.configure(block, pattern, 1, u64::from(vcpu.get_tsc_khz()?) * 1000);
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;

    let mut ring = DirtyRing::map(&vcpu, size)?;
    let (mut lost, mut cut_short) = (0, 0);
    for _ in 0..ROUNDS {
        // Twice round: every page was written since the last reset. Relaxed: a lone count.
        let goal = block.pages_written.load(Ordering::Relaxed) + 2 * PAGES;
        signal_every(1000);
        while block.pages_written.load(Ordering::Relaxed) < goal {
            match vcpu.run() {
                Err(error) if error.errno() == libc::EINTR => vcpu.set_kvm_immediate_exit(0),
                other => return Err(format!("the guest left unexpectedly: {other:?}").into()),
            }
        }
        signal_every(0);
        let mut logged = vec![false; PAGES as usize];
        ring.harvest();
        let released = ring.release(0, |page| logged[page.offset as usize] = true);
        lost = logged.iter().filter(|is_logged| !**is_logged).count();
        println!("{cut_short} cut short: {lost} of {PAGES} pages were written and are not in the ring");
        if is_blocked {
            signal_every(20);
            reset(&vm, released)?;
        } else {
            cut_short += reset_under_signals(&vm, released)?;
        }
        signal_every(0);
    }
    if lost > 0 {
        return Err(format!("{lost} pages are not logged any more").into());
    }
    Ok(())
}
