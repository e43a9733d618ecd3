//! The boot image, booted: by a loader of a few lines, and by QEMU.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    mem::offset_of,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    PAGE_SIZE, Program, Region, VcpuBlock,
    boot::{BootVcpu, elf},
    image::{LOW_MEMORY_BYTES, LowMemory, REGION_BASE},
};
use dirtyrig_testkit::{Need, run, trial};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use libtest_mimic::Failed;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

fn main() {
    run(vec![
        trial("each vCPU reaches its program", &[Need::Kvm], || {
            each_vcpu_reaches_its_program();
            Ok(())
        }),
        trial("QEMU boots it", &[Need::Kvm, Need::Qemu], qemu_boots_it),
    ])
}

const VCPUS: usize = 3;

/// Three vCPUs, each with a program and a region of its own.
fn image() -> Vec<u8> {
    let programs: [Program; VCPUS] = ["sequential", "reader", "hot-cold:50/100"].map(|name| name.parse().unwrap());
    let vcpus: Vec<_> = (0..)
        .zip(programs)
        .map(|(n, program)| BootVcpu {
            program,
            region: region(n),
            seed: n,
        })
        .collect();
    elf(&vcpus, None, 1_000_000_000).unwrap()
}

fn region(vcpu: u64) -> Region {
    let pages = 64;
    Region {
        gpa: REGION_BASE + vcpu * pages * PAGE_SIZE,
        pages,
    }
}

fn each_vcpu_reaches_its_program() {
    let (memory, entry) = load(&image());
    let kvm = Kvm::new().unwrap();
    let vm = Arc::new(kvm.create_vm().unwrap());
    vm.create_irq_chip().unwrap();
    let slot = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: LOW_MEMORY_BYTES,
        userspace_addr: memory.get_host_address(GuestAddress(0)).unwrap() as u64,
    };
    // SAFETY: the range is mapped for as long as `memory` lives, and every vCPU's thread has ended by then.
    unsafe { vm.set_user_memory_region(slot) }.unwrap();
    let mut vcpus: Vec<VcpuFd> = (0..VCPUS as u64).map(|n| create_vcpu(&kvm, &vm, n)).collect();
    protected_mode(&vcpus[0], entry);

    // The regions have no memory, so that each access is an exit.
    let accesses: Vec<Vec<(u64, bool)>> = thread::scope(|scope| {
        let threads: Vec<_> = vcpus
            .iter_mut()
            .map(|vcpu| scope.spawn(|| (0..150).map(|_| access(vcpu)).collect()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected = |vcpu: u64, is_write| {
        let Region { gpa, pages } = region(vcpu);
        (0..150)
            .map(move |n| (gpa + n % pages * PAGE_SIZE, is_write))
            .collect::<Vec<_>>()
    };
    assert_eq!(accesses[0], expected(0, true));
    assert_eq!(accesses[1], expected(1, false));
    let hot = region(2).gpa..region(2).gpa + 32 * PAGE_SIZE;
    assert!(
        accesses[2].iter().all(|(gpa, is_write)| hot.contains(gpa) && *is_write),
        "{:x?}",
        accesses[2]
    );
    for (vcpu, counter) in [
        (0, offset_of!(VcpuBlock, pages_written)),
        (1, offset_of!(VcpuBlock, pages_read)),
        (2, offset_of!(VcpuBlock, pages_written)),
    ] {
        let gpa = GuestAddress(LowMemory::block_gpa(vcpu) + counter as u64);
        assert_eq!(memory.read_obj::<u64>(gpa).unwrap(), 149, "vCPU {vcpu}");
    }
}

/// Loads an ELF file as a VMM would: what its `PT_LOAD` says into memory, and the entry out of its PVH note.
fn load(file: &[u8]) -> (GuestMemoryMmap, u64) {
    let word = |at: u64| u64::from_le_bytes(file[at as usize..][..8].try_into().unwrap());
    let half = |at: u64| u32::from_le_bytes(file[at as usize..][..4].try_into().unwrap());
    assert_eq!(&file[..4], b"\x7fELF");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LOW_MEMORY_BYTES as usize)]).unwrap();
    let (mut loaded, mut entry) = (0, None);
    let headers = word(32);
    for header in [headers, headers + 56] {
        let (offset, address, bytes) = (word(header + 8), word(header + 24), word(header + 32));
        match half(header) {
            1 => {
                let content = &file[offset as usize..][..bytes as usize];
                memory.write_slice(content, GuestAddress(address)).unwrap();
                loaded += bytes;
            }
            4 => {
                assert_eq!([half(offset), half(offset + 4), half(offset + 8)], [4, 8, 18]);
                assert_eq!(&file[offset as usize + 12..][..4], b"Xen\0");
                entry = Some(word(offset + 16));
            }
            other => panic!("program header of type {other}"),
        }
    }
    assert_eq!(loaded, LOW_MEMORY_BYTES - (1 << 20));
    (memory, entry.unwrap())
}

fn create_vcpu(kvm: &Kvm, vm: &VmFd, id: u64) -> VcpuFd {
    let vcpu = vm.create_vcpu(id).unwrap();
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap())
        .unwrap();
    vcpu
}

/// The state in which PVH enters: flat 32-bit segments, no paging, interrupts off.
fn protected_mode(vcpu: &VcpuFd, entry: u64) {
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.cs = segment(0x08, 11);
    let data = segment(0x10, 3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = 1;
    sregs.cr4 = 0;
    sregs.efer = 0;
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rflags) = (entry, 2);
    vcpu.set_regs(&regs).unwrap();
}

/// The address of the vCPU's next access to its region, and whether it is a write.
fn access(vcpu: &mut VcpuFd) -> (u64, bool) {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::MmioWrite(gpa, _)) => return (gpa, true),
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                data.fill(0);
                return (gpa, false);
            }
            Ok(exit) => panic!("{exit:?}"),
            Err(error) => match io::Error::from(error).kind() {
                // The second: the vCPU was woken by its SIPI.
                ErrorKind::Interrupted | ErrorKind::WouldBlock => {}
                _ => panic!("KVM_RUN: {error}"),
            },
        }
    }
}

/// A child that doesn't outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It fails if the child has ended by itself, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu_boots_it() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (kernel, ram) = (folder.path().join("guest.elf"), folder.path().join("ram"));
    std::fs::write(&kernel, image())?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35,memory-backend=ram",
        "-accel",
        "kvm",
        "-cpu",
        "qemu64",
        "-m",
        "64M",
    ])
    .args(["-bios", "qboot.rom", "-nodefaults", "-display", "none"])
    // A vCPU more than the image knows: it must halt. Should it fault instead, `-no-reboot` ends QEMU.
    .args(["-smp", "4,sockets=1,cores=4,threads=1", "-no-reboot"])
    .arg("-object")
    .arg(format!(
        "memory-backend-file,id=ram,size=64M,share=on,mem-path={}",
        ram.display()
    ))
    .arg("-kernel")
    .arg(&kernel)
    .stdin(Stdio::null());
    let mut qemu = Killed(qemu.spawn()?);
    // Generous, and only there so that a guest which never starts fails the test instead of hanging it.
    let given_up = Instant::now() + Duration::from_secs(2 * 60);
    loop {
        if let Some(status) = qemu.0.try_wait()? {
            return Err(format!("QEMU ended by itself: {status}").into());
        }
        // So many that a vCPU gone astray would have faulted by then.
        if let Ok(counts) = counts(&ram)
            && counts.iter().all(|&count| count > 1_000_000)
        {
            return Ok(());
        }
        if Instant::now() > given_up {
            return Err(format!("the counters stand at {:?}", counts(&ram)).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each vCPU's pages written and read, as they stand in the guest's memory.
fn counts(ram: &std::path::Path) -> io::Result<[u64; VCPUS]> {
    let mut file = File::open(ram)?;
    let mut counts = [0; VCPUS];
    for (vcpu, count) in counts.iter_mut().enumerate() {
        let mut words = [0; 16];
        file.seek(SeekFrom::Start(LowMemory::block_gpa(vcpu)))?;
        file.read_exact(&mut words)?;
        let (written, read) = words.split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        *count = word(written) + word(read);
    }
    Ok(counts)
}
