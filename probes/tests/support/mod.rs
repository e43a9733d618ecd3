//! A real KVM guest, as small as can be: each vCPU increments one word a page over its own region, for ever. It counts
//! by itself what the probes are to see from the kernel. The regions are one and the same memory, so that many are cheap.

// Each test target uses its own part.
#![allow(dead_code)]

use std::{
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_DIRTY_LOG_PAGE_OFFSET, KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_LOG_DIRTY_PAGES, kvm_enable_cap, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
    signal::{SigSet, SigmaskHow},
};

const PAGE: usize = 4096;
/// Memory that is not logged: page tables, code, counters.
const LOW: usize = 2 << 20;
const PML4: usize = 0x9000;
const PDPT: usize = 0xa000;
const DIRECTORIES: usize = 0x10000;
const CODE: usize = 0x1000;
const COUNTERS: usize = 0x8000;
const GIB_MAPPED: usize = 4;
const KVM_RESET_DIRTY_RINGS: u64 = 0xAEC7;
const ENTRY_BYTES: usize = 16;
const DIRTY: u32 = 1;
const RESET: u32 = 2;

/// `for (;;) for (page in region) { page[0] += 1; *counter += 1; if (--left == 0) { out; left = batch } }`, with rdi the
/// region, rsi its pages, rbx the counter, rdx what is left of a batch, r8 the batch.
const PROGRAM: [u8; 35] = [
    0x48, 0x89, 0xf1, // mov rcx, rsi
    0x48, 0x89, 0xf8, // mov rax, rdi
    0x48, 0xff, 0x00, // inc qword [rax]
    0x48, 0xff, 0x03, // inc qword [rbx]
    0x48, 0x05, 0x00, 0x10, 0x00, 0x00, // add rax, 4096
    0x48, 0xff, 0xca, // dec rdx
    0x75, 0x05, // jnz to dec rcx
    0xe6, 0x10, // out 0x10, al
    0x4c, 0x89, 0xc2, // mov rdx, r8
    0x48, 0xff, 0xc9, // dec rcx
    0x75, 0xe5, // jnz to inc
    0xeb, 0xdd, // jmp to the begin
];
/// A batch that never ends.
const ENDLESS: u64 = u64::MAX;
/// Lets the guest use ports at CPL 3.
const IOPL_3: u64 = 3 << 12;

/// Shape of a guest.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// 0: none, but a dirty bitmap.
    pub(crate) ring_entries: usize,
    pub(crate) vcpus: usize,
    pub(crate) pages_per_vcpu: usize,
}

/// What a vCPU thread counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) tid: AtomicI32,
    pub(crate) ring_full: AtomicU64,
    pub(crate) interrupted: AtomicU64,
    pub(crate) runs: AtomicU64,
    pub(crate) harvested: AtomicU64,
    pub(crate) reset: AtomicU64,
}

/// What the vCPU thread does after each return of `KVM_RUN`, once it has harvested and reset: how many it harvested.
pub(crate) type AfterExit = Arc<dyn Fn(usize, u64) + Send + Sync>;

/// A VM, built and not yet running.
pub(crate) struct Guest {
    shared: Arc<Shared>,
    vcpus: Vec<VcpuFd>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    vm: VmFd,
    memory: Mapping,
    shape: Shape,
    stop: AtomicBool,
    counts: Vec<Counts>,
    /// Of each vCPU. The lock is held from harvest to reset.
    rings: Mutex<Vec<Ring>>,
    _kvm: Kvm,
}

impl Guest {
    pub(crate) fn new(shape: Shape) -> Self {
        Self::in_batches(shape, ENDLESS)
    }

    /// A guest whose vCPUs stand still, by themselves, after each `batch` pages.
    pub(crate) fn in_batches(shape: Shape, batch: u64) -> Self {
        let kvm = Kvm::new().unwrap();
        let vm = loop {
            match kvm.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                vm => break vm.unwrap(),
            }
        };
        let mut ring = kvm_enable_cap {
            cap: KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
            ..Default::default()
        };
        ring.args[0] = (shape.ring_entries * ENTRY_BYTES) as u64;
        if shape.ring_entries > 0 {
            vm.enable_cap(&ring).unwrap();
        }
        let logged = shape.pages_per_vcpu * PAGE;
        let memory = Mapping::anonymous(LOW + logged);
        let slots = (0..shape.vcpus).map(|vcpu| {
            (
                vcpu as u32 + 1,
                KVM_MEM_LOG_DIRTY_PAGES,
                LOW,
                LOW + vcpu * logged,
                logged,
            )
        });
        for (slot, flags, from, to, bytes) in slots.chain([(0, 0, 0, 0, LOW)]) {
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: to as u64,
                memory_size: bytes as u64,
                userspace_addr: memory.at(from) as u64,
            };
            // SAFETY: the memory outlives the VM, both being in `Shared`, and is reached through raw pointers alone.
            unsafe { vm.set_user_memory_region(region) }.unwrap();
        }
        memory.write(PML4, &(PDPT as u64 | 7));
        for gib in 0..GIB_MAPPED {
            let directory = DIRECTORIES + gib * PAGE;
            memory.write(PDPT + gib * 8, &(directory as u64 | 7));
            for large_page in 0..512 {
                memory.write(
                    directory + large_page * 8,
                    &(((gib * 512 + large_page) as u64) << 21 | 0x87),
                );
            }
        }
        memory.write(CODE, &PROGRAM);
        let vcpus: Vec<_> = (0..shape.vcpus)
            .map(|index| create_vcpu(&kvm, &vm, index, shape, batch))
            .collect();
        let with_ring = vcpus.iter().filter(|_| shape.ring_entries > 0);
        let rings = with_ring.map(|vcpu| Ring::map(vcpu, shape.ring_entries)).collect();
        let counts = (0..shape.vcpus).map(|_| Counts::default()).collect();
        let shared = Shared {
            vm,
            memory,
            shape,
            stop: AtomicBool::new(false),
            counts,
            rings: Mutex::new(rings),
            _kvm: kvm,
        };
        Self {
            shared: Arc::new(shared),
            vcpus,
            threads: Vec::new(),
        }
    }

    /// Starts a thread a vCPU; returns once each has said its id and waits for `go`.
    pub(crate) fn start(&mut self, go: &Arc<AtomicBool>, after_exit: &AfterExit) {
        handle_kicks();
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            let (shared, go, after_exit) = (self.shared.clone(), go.clone(), after_exit.clone());
            let mut vcpu = vcpu;
            let body = move || run_vcpu(&shared, &mut vcpu, index, &go, &after_exit);
            self.threads.push(
                std::thread::Builder::new()
                    .name(format!("vcpu{index}"))
                    .spawn(body)
                    .unwrap(),
            );
        }
        while self
            .shared
            .counts
            .iter()
            .any(|counts| counts.tid.load(Ordering::Acquire) == 0)
        {
            std::thread::yield_now();
        }
    }

    /// Has a thread of its own harvest and reset every ring, again and again, from now until it is stopped: no vCPU has to
    /// leave the guest for that.
    pub(crate) fn reap(&mut self) {
        const PAUSE: Duration = Duration::from_millis(2);
        let shared = self.shared.clone();
        self.threads.push(std::thread::spawn(move || {
            while !shared.stop.load(Ordering::Acquire) {
                shared.harvest(0..shared.shape.vcpus);
                std::thread::sleep(PAUSE);
            }
        }));
    }

    /// Starts a thread a vCPU, each of which stands still until [`Batches::run`]: for a guest in batches.
    pub(crate) fn start_batches(&mut self) -> Batches {
        handle_kicks();
        let gate = Arc::new(Barrier::new(self.shared.shape.vcpus + 1));
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            let (shared, gate, mut vcpu) = (self.shared.clone(), gate.clone(), vcpu);
            self.threads.push(std::thread::spawn(move || {
                let tid = nix::unistd::gettid().as_raw();
                shared.counts[index].tid.store(tid, Ordering::Release);
                gate.wait();
                loop {
                    gate.wait();
                    if shared.stop.load(Ordering::Acquire) {
                        return;
                    }
                    while !runs_to_its_end(&mut vcpu) {}
                    gate.wait();
                }
            }));
        }
        gate.wait();
        Batches {
            gate,
            shared: self.shared.clone(),
        }
    }

    /// Reads and clears the bitmap of a vCPU's pages: how many bits were set.
    pub(crate) fn sync(&self, vcpu: usize) -> u64 {
        let bytes = self.shared.shape.pages_per_vcpu * PAGE;
        let bits = self.shared.vm.get_dirty_log(vcpu as u32 + 1, bytes).unwrap();
        bits.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Runs vCPU 0 in this very thread until `pages` were harvested, all in all.
    pub(crate) fn run_here(&mut self, pages: u64) {
        handle_kicks();
        let (shared, vcpu) = (self.shared.clone(), &mut self.vcpus[0]);
        shared.stop.store(false, Ordering::Release);
        let until = shared.clone();
        let after_exit: AfterExit = Arc::new(move |index, _| {
            if until.counts[index].harvested.load(Ordering::Relaxed) >= pages {
                until.stop.store(true, Ordering::Release);
            }
        });
        run_vcpu(&shared, vcpu, 0, &AtomicBool::new(true), &after_exit);
    }

    /// Ends every vCPU, each having harvested and reset what its ring held.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() {
                kick(&thread);
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.join().unwrap();
        }
    }

    pub(crate) fn counts(&self, vcpu: usize) -> &Counts {
        &self.shared.counts[vcpu]
    }

    /// The id of a vCPU's thread.
    pub(crate) fn thread(&self, vcpu: usize) -> u32 {
        self.counts(vcpu).tid.load(Ordering::Acquire) as u32
    }

    /// Makes a vCPU leave `KVM_RUN`.
    pub(crate) fn kick(&self, vcpu: usize) {
        kick(&self.threads[vcpu]);
    }

    /// Pages written, by the guest's own counter.
    pub(crate) fn written(&self, vcpu: usize) -> u64 {
        self.shared.memory.counter(COUNTERS + vcpu * 64).load(Ordering::Relaxed)
    }

    /// Waits until a vCPU has written `pages` more.
    pub(crate) fn wait_for(&self, vcpu: usize, pages: u64) {
        let from = self.written(vcpu);
        while self.written(vcpu) < from + pages {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The vCPUs of a guest that runs in batches; ends them when it is dropped.
pub(crate) struct Batches {
    gate: Arc<Barrier>,
    shared: Arc<Shared>,
}

impl Batches {
    /// Runs a batch of every vCPU, at the same time, and returns when all stand still.
    pub(crate) fn run(&self) {
        self.gate.wait();
        self.gate.wait();
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.gate.wait();
    }
}

/// Runs a vCPU; whether it came to the end of its batch.
fn runs_to_its_end(vcpu: &mut VcpuFd) -> bool {
    match vcpu.run() {
        Ok(VcpuExit::IoOut(..)) => true,
        Err(error) if error.errno() == libc::EINTR => false,
        other => panic!("KVM_RUN: {other:?}"),
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

fn create_vcpu(kvm: &Kvm, vm: &VmFd, index: usize, shape: Shape, batch: u64) -> VcpuFd {
    let vcpu = vm.create_vcpu(index as u64).unwrap();
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap())
        .unwrap();
    // CPL 3 in long mode: kvm-pvm emulates kernel mode.
    let segment = |type_, l, db, selector| kvm_segment {
        limit: 0xffff_ffff,
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
    let mut special = vcpu.get_sregs().unwrap();
    special.cs = segment(11, 1, 0, 0x33);
    let data = segment(3, 0, 1, 0x2b);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.cr3 = PML4 as u64;
    special.cr4 = 0x20;
    special.cr0 = 0x8005_0033;
    special.efer = 0x500;
    vcpu.set_sregs(&special).unwrap();
    let mut general = vcpu.get_regs().unwrap();
    general.rip = CODE as u64;
    general.rflags = if batch == ENDLESS { 2 } else { 2 | IOPL_3 };
    (general.rdx, general.r8) = (batch, batch);
    general.rdi = (LOW + index * shape.pages_per_vcpu * PAGE) as u64;
    general.rsi = shape.pages_per_vcpu as u64;
    general.rbx = (COUNTERS + index * 64) as u64;
    general.rsp = 0x7000;
    vcpu.set_regs(&general).unwrap();
    vcpu
}

impl Shared {
    /// Harvests the rings of these vCPUs and resets them; returns how many entries there were.
    fn harvest(&self, vcpus: std::ops::Range<usize>) -> u64 {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = 0;
        let first = vcpus.start;
        for vcpu in vcpus {
            // None with a bitmap.
            let Some(ring) = rings.get_mut(vcpu) else { continue };
            let harvested = ring.harvest();
            self.counts[vcpu].harvested.fetch_add(harvested, Ordering::Relaxed);
            all += harvested;
        }
        if all > 0 {
            self.counts[first].reset.fetch_add(reset(&self.vm), Ordering::Relaxed);
        }
        all
    }
}

fn run_vcpu(shared: &Shared, vcpu: &mut VcpuFd, index: usize, go: &AtomicBool, after_exit: &AfterExit) {
    let counts = &shared.counts[index];
    counts.tid.store(nix::unistd::gettid().as_raw(), Ordering::Release);
    while !go.load(Ordering::Acquire) && !shared.stop.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    while !shared.stop.load(Ordering::Acquire) {
        counts.runs.fetch_add(1, Ordering::Relaxed);
        match vcpu.run() {
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => counts.ring_full.fetch_add(1, Ordering::Relaxed),
            Err(error) if error.errno() == libc::EINTR => counts.interrupted.fetch_add(1, Ordering::Relaxed),
            other => panic!("KVM_RUN: {other:?}"),
        };
        after_exit(index, shared.harvest(index..index + 1));
    }
}

/// Resets every ring of the VM. Not to be ended by a kick, which would
/// leave some for the next reset: after the last one there is none.
fn reset(vm: &VmFd) -> u64 {
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .expect("every signal can be blocked");
    // SAFETY: an ioctl of a VM without argument.
    let result = unsafe { libc::ioctl(vm.as_raw_fd(), KVM_RESET_DIRTY_RINGS as _, 0) };
    let error = nix::errno::Errno::last();
    before.thread_set_mask().expect("a mask that was in force");
    u64::try_from(result).unwrap_or_else(|_| panic!("KVM_RESET_DIRTY_RINGS: {error}"))
}

struct Ring {
    mapping: Mapping,
    entries: usize,
    next: usize,
}

impl Ring {
    fn map(vcpu: &VcpuFd, entries: usize) -> Self {
        let offset = i64::from(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE as u32);
        Self {
            mapping: Mapping::shared(borrow(vcpu), entries * ENTRY_BYTES, offset),
            entries,
            next: 0,
        }
    }

    /// Reads every dirty entry in order and gives it back; returns how many there were.
    fn harvest(&mut self) -> u64 {
        let mut harvested = 0;
        loop {
            let flags = self.mapping.flags((self.next % self.entries) * ENTRY_BYTES);
            // Acquire: pairs with KVM's release of a filled entry.
            if flags.load(Ordering::Acquire) & DIRTY == 0 {
                return harvested;
            }
            // Release: pairs with the acquire of KVM's reset.
            flags.store(RESET, Ordering::Release);
            self.next += 1;
            harvested += 1;
        }
    }
}

fn borrow(vcpu: &VcpuFd) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the vCPU, which is borrowed.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(vcpu.as_raw_fd()) }
}

/// Mapped memory, which a guest or the kernel shares.
struct Mapping {
    first: NonNull<u8>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to no thread; what is shared in it is reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn anonymous(bytes: usize) -> Self {
        let bytes = NonZeroUsize::new(bytes).unwrap();
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping that aliases nothing.
        let mapped = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
        Self {
            first: mapped.unwrap().cast(),
            bytes,
        }
    }

    fn shared(descriptor: impl AsFd, bytes: usize, offset: i64) -> Self {
        let bytes = NonZeroUsize::new(bytes).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping; what it shares with the kernel is reached through atomics.
        let mapped = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, descriptor, offset) };
        Self {
            first: mapped.unwrap().cast(),
            bytes,
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes.get());
        // SAFETY: in bounds, as just checked.
        unsafe { self.first.as_ptr().add(offset) }
    }

    fn write<T: Copy>(&self, offset: usize, value: &T) {
        assert!(offset + size_of::<T>() <= self.bytes.get());
        // SAFETY: in bounds, and no guest runs yet.
        unsafe { self.at(offset).cast::<T>().write_unaligned(*value) }
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in bounds, aligned, and live as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    fn flags(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and no reference outlives `self`.
        unsafe { munmap(self.first.cast(), self.bytes.get()) }.unwrap();
    }
}

/// The signal that makes a vCPU thread leave `KVM_RUN`.
pub(crate) const KICK: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGUSR1;

fn handle_kicks() {
    extern "C" fn nothing(_: i32) {}
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(nothing),
        // No SA_RESTART: the point is that KVM_RUN returns.
        nix::sys::signal::SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { nix::sys::signal::sigaction(KICK, &action) }.unwrap();
}

fn kick(thread: &JoinHandle<()>) {
    use std::os::unix::thread::JoinHandleExt as _;
    nix::sys::pthread::pthread_kill(thread.as_pthread_t(), KICK).unwrap();
}
