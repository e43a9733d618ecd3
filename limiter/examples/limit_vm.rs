//! A plain kvm-ioctls VM whose vCPU is limited: `cargo run --release -p dirtyrig-limiter --example limit_vm`.
//! Steps 1 to 4 are all that a VMM adds.
use std::{error::Error, sync::Arc, thread, time::Duration};

use dirtyrig_guests::image::{LowMemory, REGION_BASE};
use dirtyrig_guests::{Program, Region as Pattern};
use dirtyrig_limiter::{
    attach::{Ran, VmLimiter},
    kvm::{
        caps::RingSize,
        memory::{GuestMemory, HugePages, Region},
        vcpu::{Entry, start_in_long_mode},
        vm::enable_ring,
    },
    law::LimiterKind,
    limit::Which,
    machine::LimiterSpec,
    units::Quota,
};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::Kvm;

fn main() -> Result<(), Box<dyn Error>> {
    let kvm = Kvm::new()?;
    let vm = Arc::new(kvm.create_vm()?);

    // 1. Dirty rings, before any vCPU is created.
    let ring = RingSize::new(65536)?;
    enable_ring(&kvm, &vm, ring)?;

    // Memory, and a guest that writes one word a page of 512 MiB, round and round.
    let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
    let data = region(REGION_BASE, 512 << 20, true);
    let guest = LowMemory::build(&[Program::Sequential], data.gpa + data.bytes)?;
    let low = region(0, guest.bytes.len() as u64, false);
    let memory = GuestMemory::populated(&[low, data], HugePages::Never)?;
    memory.write(0, &guest.bytes)?;
    for (slot, (region, host)) in memory.slots().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: if region.logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: region.gpa,
            memory_size: region.bytes,
            userspace_addr: host,
        };
        // SAFETY: the range is a mapping of `memory`, which outlives the VM's last run.
        unsafe { vm.set_user_memory_region(slot) }?;
    }
    let mut fd = vm.create_vcpu(0)?;
    fd.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let LowMemory { entries, .. } = guest;
    let (rip, rdi, rsp, cr3) = (entries[0].rip, entries[0].rdi, entries[0].rsp, entries[0].cr3);
    start_in_long_mode(&fd, Entry { rip, rdi, rsp, cr3 })?;
    let tsc_hz = u64::from(fd.get_tsc_khz()?) * 1000;
    let (gpa, pages) = (data.gpa, data.bytes / 4096);
    Program::Sequential.configure(
        memory.block(LowMemory::block_gpa(0))?,
        Pattern { gpa, pages },
        1,
        tsc_hz,
    );

    // 2. The limiter.
    let spec = LimiterSpec {
        kind: LimiterKind::Budget,
        period: Duration::from_secs(1),
        max_stall: Duration::from_millis(5),
    };
    let limiter = VmLimiter::new(Arc::clone(&vm), ring, 1, spec, None)?;

    thread::scope(|scope| {
        let (limiter, fd) = (&limiter, &mut fd);
        let runner = scope.spawn(move || {
            // 3. The vCPU, on its thread.
            let mut vcpu = limiter.vcpu(0, fd, None)?;
            loop {
                // 4. In place of `fd.run()`.
                match vcpu.run(fd)? {
                    Ran::Exit(exit) => println!("for the VMM to handle: {exit:?}"),
                    Ran::Again => {}
                    Ran::Stopped => return Ok::<(), dirtyrig_limiter::kvm::Error>(()),
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
