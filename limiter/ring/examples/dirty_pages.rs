//! A guest that writes one page after the other, and the pages that its ring tells of:
//! `cargo run --release -p dirtyrig-ring --example dirty_pages`.
use std::{error::Error, time::Instant};

use dirtyrig_guests::image::{LowMemory, REGION_BASE};
use dirtyrig_guests::{Program, Region as Pattern};
use dirtyrig_machine::{memory::GuestMemory, memory::HugePages, memory::Region, start_in_long_mode};
use dirtyrig_ring::{DirtyRing, RingSize, enable, reset};
use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Kvm, VcpuExit};

fn main() -> Result<(), Box<dyn Error>> {
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let size = RingSize::new(4096)?;
    enable(&kvm, &vm, size)?;

    // Memory, and a guest that writes one word per page of 64 MiB, round and round.
    let (gpa, pages) = (REGION_BASE, 16384);
    let guest = LowMemory::build(&[Program::Sequential], gpa + pages * 4096)?;
    let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
    let regions = [
        region(0, guest.bytes.len() as u64, false),
        region(gpa, pages * 4096, true),
    ];
    let memory = GuestMemory::populated(&regions, HugePages::Never)?;
    memory.write(0, &guest.bytes)?;
    // SAFETY: the memory outlives the VM's last run.
    unsafe { memory.give_to(&vm) }?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    start_in_long_mode(&vcpu, guest.entries[0])?;
    let tsc_hz = u64::from(vcpu.get_tsc_khz()?) * 1000;
    Program::Sequential.configure(
        memory.block(LowMemory::block_gpa(0))?,
        Pattern { gpa, pages },
        1,
        tsc_hz,
    );

    let mut ring = DirtyRing::map(&vcpu, size)?;
    for _ in 0..10 {
        let begun = Instant::now();
        match vcpu.run()? {
            VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL) => {}
            other => return Err(format!("the guest left unexpectedly: {other:?}").into()),
        }
        let (mut first, mut last) = (u64::MAX, 0);
        ring.harvest();
        let released = ring.release(0, |page| {
            (first, last) = (first.min(page.offset), last.max(page.offset));
        });
        reset(&vm, released)?;
        println!(
            "full after {:?}: {released} pages, from {first} to {last}",
            begun.elapsed()
        );
    }
    Ok(())
}
