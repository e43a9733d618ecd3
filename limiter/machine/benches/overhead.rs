//! What the limiter costs a guest that it doesn't limit, against a bare loop of `KVM_RUN`, harvest and reset; and what
//! harvest and reset cost an entry. Both sides run in turn within one process, so that their ratio outlives a noisy host.
//!
//! `cargo bench -p dirtyrig-machine --bench overhead`

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    error::Error,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    Program, Region as Pattern,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_limiter::{
    law::LimiterKind,
    limit::Which,
    units::{PAGE_SIZE, Quota},
};
use dirtyrig_machine::{
    memory::{GuestMemory, HugePages, Region},
    start_in_long_mode,
};
use dirtyrig_ring::{DirtyRing, RingSize};
use kvm_bindings::{KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use support::{Small, block};

/// Rounds of each pair; medians are quoted.
const ROUNDS: usize = 11;

/// How long a guest runs before it is measured, and how long it is.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_secs(2);

/// Pages of the guest: 256 MiB.
const PAGES: u64 = 65536;

fn main() {
    if !dirtyrig_testkit::Need::Kvm.is_met() {
        println!("/dev/kvm is missing: nothing measured");
        return;
    }
    for ring in [1024, 4096, 65536] {
        let what = format!("ring {ring}, unlimited: `none` / bare loop");
        compare(&what, || bare(ring), || limited(ring, LimiterKind::None, None));
    }
    for kind in [LimiterKind::Budget, LimiterKind::Ballast, LimiterKind::Qemu72] {
        // A quota far above the guest's speed: the machinery runs and never throttles.
        let what = format!("ring 4096, quota out of reach: `{kind}` / `none`");
        compare(
            &what,
            || limited(4096, LimiterKind::None, None),
            || limited(4096, kind, Some(1_000_000.0)),
        );
    }
    harvest_and_reset();
}

/// Runs both in turn and prints the ratio of their rates.
fn compare(what: &str, base: impl Fn() -> f64, other: impl Fn() -> f64) {
    let pairs: Vec<_> = (0..ROUNDS).map(|_| (base(), other())).collect();
    let ratios = pairs.iter().map(|(base, other)| other / base).collect();
    let rates = pairs.iter().map(|(base, _)| base / 256.0).collect();
    let (ratio, low, high) = spread(ratios);
    println!(
        "{what}: {ratio:.4} ({low:.4} to {high:.4}), base {:.0} MiB/s, {ROUNDS} pairs",
        spread(rates).0
    );
}

/// Median, and the quartiles around it.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.25), at(0.75))
}

/// Pages per second of a guest under `kind`.
fn limited(ring: u32, kind: LimiterKind, quota: Option<f64>) -> f64 {
    let mut small = Small::new(ring, kind);
    small.pages_each = PAGES;
    small.period = Duration::from_secs(1);
    let machine = small.build(None);
    if let Some(quota) = quota {
        machine
            .limit()
            .set(Which::All, Quota::new(quota).expect("a valid quota"))
            .expect("vCPU 0 exists");
    }
    machine.plug(0);
    let rate = rate(|| block(&machine, 0).pages_written.load(Ordering::Relaxed));
    machine.stop().expect("nothing failed");
    rate
}

/// The same guest without a machine around it. Declared in the order in which it goes.
struct Bare {
    ring: DirtyRing,
    vcpu: VcpuFd,
    vm: VmFd,
    memory: GuestMemory,
}

impl Bare {
    fn new(ring: u32, pages: u64) -> Result<Self, Box<dyn Error>> {
        let (kvm, size) = (Kvm::new()?, RingSize::new(ring)?);
        let vm = kvm.create_vm()?;
        dirtyrig_ring::enable(&kvm, &vm, size)?;
        let region = |gpa, bytes, logged| Region { gpa, bytes, logged };
        let data = region(REGION_BASE, pages * PAGE_SIZE, true);
        let low = LowMemory::build(&[Program::Sequential], data.gpa + data.bytes)?;
        let regions = [region(0, low.bytes.len() as u64, false), data];
        let memory = GuestMemory::populated(&regions, HugePages::Never)?;
        memory.write(0, &low.bytes)?;
        // SAFETY: `Bare` keeps it longer than the vCPU.
        unsafe { memory.give_to(&vm) }?;
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        start_in_long_mode(&vcpu, low.entries[0])?;
        let pattern = Pattern {
            gpa: REGION_BASE,
            pages,
        };
        let tsc_hz = u64::from(vcpu.get_tsc_khz()?) * 1000;
        Program::Sequential.configure(memory.block(LowMemory::block_gpa(0))?, pattern, 1, tsc_hz);
        let ring = DirtyRing::map(&vcpu, size)?;
        Ok(Self { ring, vcpu, vm, memory })
    }

    /// Runs the guest until its ring is full.
    fn fill(&mut self) {
        match self.vcpu.run().expect("the guest runs") {
            VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL) => {}
            other => panic!("the guest left unexpectedly: {other:?}"),
        }
    }

    fn written(&self) -> u64 {
        let block = self.memory.block(LowMemory::block_gpa(0));
        block
            .expect("blocks are in low memory")
            .pages_written
            .load(Ordering::Relaxed)
    }
}

/// Pages per second of the same guest in the smallest loop that keeps it going.
fn bare(ring: u32) -> f64 {
    let mut guest = Bare::new(ring, PAGES).expect("KVM works here");
    let until = |guest: &mut Bare, span: Duration| {
        let (begin, before) = (Instant::now(), guest.written());
        while begin.elapsed() < span {
            guest.fill();
            guest.ring.harvest();
            let released = guest.ring.release(0, |_| ());
            dirtyrig_ring::reset(&guest.vm, released).expect("nobody else resets");
        }
        (guest.written() - before) as f64 / begin.elapsed().as_secs_f64()
    };
    until(&mut guest, WARM_UP);
    until(&mut guest, MEASURED)
}

fn rate(written: impl Fn() -> u64) -> f64 {
    thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), written());
    thread::sleep(MEASURED);
    (written() - before) as f64 / begin.elapsed().as_secs_f64()
}

/// Times harvest, release and reset of full rings, in a machine that nobody else reaps.
fn harvest_and_reset() {
    let mut guest = Bare::new(65536, 2 * PAGES).expect("KVM works here");
    let mut costs: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        guest.fill();
        let begin = Instant::now();
        let entries = guest.ring.harvest();
        let harvested = Instant::now();
        let released = guest.ring.release(0, |_| ());
        let given = Instant::now();
        dirtyrig_ring::reset(&guest.vm, released).expect("nobody else resets");
        let spans = [
            harvested.duration_since(begin),
            given.duration_since(harvested),
            given.elapsed(),
        ];
        for (cost, span) in costs.iter_mut().zip(spans) {
            cost.push(span.as_nanos() as f64 / entries as f64);
        }
    }
    for (what, cost) in ["harvest", "release", "reset"].into_iter().zip(costs) {
        let (median, low, high) = spread(cost);
        println!(
            "{what}: {median:.2} ns an entry ({low:.2} to {high:.2}), {ROUNDS} full rings of {}",
            guest.ring.size()
        );
    }
}
