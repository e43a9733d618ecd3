//! A plain kvm-ioctls VM whose vCPU is limited: `cargo run --release -p dirtyrig-limiter --example limit_vm`.
//! Steps 1 to 4 are all that a VMM adds.
use std::{error::Error, sync::Arc, thread, time::Duration};

use dirtyrig_guests::image::{LowMemory, REGION_BASE};
use dirtyrig_guests::{Program, Region as Pattern};
use dirtyrig_limiter::{
    LimiterSpec,
    attach::{Ran, VmLimiter, VmSpec},
    law::LimiterKind,
    limit::Which,
    units::Quota,
};
use dirtyrig_machine::{
    memory::{GuestMemory, HugePages, Region},
    start_in_long_mode,
};
use dirtyrig_ring::RingSize;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;

fn main() -> Result<(), Box<dyn Error>> {
    let kvm = Kvm::new()?;
    let vm = Arc::new(kvm.create_vm()?);

    // 1. Dirty rings, before any vCPU is created.
    let ring = RingSize::new(65536)?;
    dirtyrig_ring::enable(&kvm, &vm, ring)?;

    // Memory, and a guest that writes one word a page of 512 MiB, round and round.
    let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
    let data = region(REGION_BASE, 512 << 20, true);
    let guest = LowMemory::build(&[Program::Sequential], data.gpa + data.bytes)?;
    let low = region(0, guest.bytes.len() as u64, false);
    let memory = GuestMemory::populated(&[low, data], HugePages::Never)?;
    memory.write(0, &guest.bytes)?;
    // SAFETY: the memory outlives the VM's last run.
    unsafe { memory.give_to(&vm) }?;
    let fd = vm.create_vcpu(0)?;
    fd.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    start_in_long_mode(&fd, guest.entries[0])?;
    let tsc_hz = u64::from(fd.get_tsc_khz()?) * 1000;
    let (gpa, pages) = (data.gpa, data.bytes / 4096);
    Program::Sequential.configure(
        memory.block(LowMemory::block_gpa(0))?,
        Pattern { gpa, pages },
        1,
        tsc_hz,
    );

    // 2. The limiter.
    let spec = VmSpec::new(ring, 1, LimiterSpec::new(LimiterKind::Budget));
    let limiter = VmLimiter::new(Arc::clone(&vm), spec)?;

    thread::scope(|scope| {
        let limiter = &limiter;
        let runner = scope.spawn(move || {
            // 3. The vCPU, on its thread.
            let mut vcpu = limiter.vcpu(0, fd, None)?;
            loop {
                // 4. In place of `fd.run()`.
                match vcpu.run()? {
                    Ran::Exit(exit) => println!("for the VMM to handle: {exit:?}"),
                    Ran::Again => {}
                    Ran::Stopped => return Ok::<(), dirtyrig_limiter::Error>(()),
                }
            }
        });
        let watch = |what: &str| {
            let before = limiter.harvested(0);
            thread::sleep(Duration::from_secs(1));
            println!("{what}: {:.1} MiB/s", limiter.harvested(0).to_mib() - before.to_mib());
        };
        for quota in [25.0, 300.0, 1.0] {
            limiter.limit().set(Which::All, Quota::new(quota)?)?;
            watch(&format!("quota {quota} MiB/s"));
        }
        limiter.limit().cancel(Which::All)?;
        watch("unlimited");
        limiter.stop();
        Ok(runner.join().expect("the vCPU's thread doesn't panic")?)
    })
}
