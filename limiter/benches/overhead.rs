//! What the limiter costs a guest that it doesn't limit, against a bare loop of `KVM_RUN`, harvest and reset; and what
//! harvest and reset cost an entry. Both sides run in turn within one process, so that their ratio outlives a noisy host.
//!
//! `cargo bench -p dirtyrig-limiter --bench overhead`

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dirtyrig_guests::{
    Program, Region as Pattern, VcpuBlock,
    image::{LowMemory, REGION_BASE},
};
use dirtyrig_limiter::{
    kvm::{
        caps::{self, RingSize},
        kick::{self, Kicker},
        memory::{GuestMemory, HugePages, Region},
        ring::DirtyRing,
        vcpu::{Entry, Exit, Vcpu},
        vm::{Vm, reset_dirty_rings},
    },
    law::LimiterKind,
    limit::Which,
    units::{PAGE_SIZE, Quota},
};
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

/// Pages a second of a guest under `kind`.
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

/// The same guest without a machine around it.
struct Bare {
    vm: Vm,
    vcpu: Vcpu,
    ring: DirtyRing,
}

impl Bare {
    fn new(ring: u32, pages: u64) -> Self {
        let size = RingSize::new(ring).expect("a valid size");
        kick::install_handler().expect("signals work");
        let data = Region {
            gpa: REGION_BASE,
            bytes: pages * PAGE_SIZE,
            logged: true,
        };
        let low = LowMemory::build(&[Program::Sequential], data.gpa + data.bytes).expect("a small guest fits");
        let low_region = Region {
            gpa: 0,
            bytes: low.bytes.len() as u64,
            logged: false,
        };
        let memory = GuestMemory::populated(&[low_region, data], HugePages::Never).expect("memory is free");
        memory.write(0, &low.bytes).expect("low memory is the guest's");
        let kvm = caps::open().expect("KVM works here");
        let vm = Vm::new(&kvm, Arc::new(memory), Some(size)).expect("a VM");
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        let entry = low.entries[0];
        vcpu.start_at(Entry {
            rip: entry.rip,
            rdi: entry.rdi,
            rsp: entry.rsp,
            cr3: entry.cr3,
        })
        .expect("registers");
        let pattern = Pattern {
            gpa: REGION_BASE,
            pages,
        };
        Program::Sequential.configure(block_of(&vm), pattern, 1, vcpu.tsc_hz().expect("a TSC"));
        let ring = vcpu.map_ring(size).expect("the ring");
        Self { vm, vcpu, ring }
    }
}

fn block_of(vm: &Vm) -> &VcpuBlock {
    vm.memory()
        .block(LowMemory::block_gpa(0))
        .expect("blocks are in low memory")
}

/// Pages a second of the same guest in the smallest loop that keeps it going.
fn bare(ring: u32) -> f64 {
    let Bare { vm, vcpu, mut ring } = Bare::new(ring, PAGES);
    let (vm, stop) = (&vm, &AtomicBool::new(false));
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        scope.spawn(move || {
            let mut vcpu = vcpu.bind();
            send.send(Kicker::this_thread()).expect("the other side waits");
            while !stop.load(Ordering::Relaxed) {
                if vcpu.run().expect("the guest runs") == Exit::RingFull {
                    ring.harvest();
                    let released = ring.release(0, |_| ());
                    reset_dirty_rings(&vm.fd(), released).expect("nobody else resets");
                }
            }
        });
        let kicker = receive.recv().expect("the vCPU thread starts");
        let rate = rate(|| block_of(vm).pages_written.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        kicker.kick();
        rate
    })
}

fn rate(written: impl Fn() -> u64) -> f64 {
    thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), written());
    thread::sleep(MEASURED);
    (written() - before) as f64 / begin.elapsed().as_secs_f64()
}

/// Times harvest, release and reset of full rings, in a machine that nobody else reaps.
fn harvest_and_reset() {
    let Bare { vm, vcpu, mut ring } = Bare::new(65536, 2 * PAGES);
    let mut vcpu = vcpu.bind();
    let mut costs: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        while vcpu.run().expect("the guest runs") != Exit::RingFull {}
        let begin = Instant::now();
        let entries = ring.harvest();
        let harvested = Instant::now();
        let released = ring.release(0, |_| ());
        let given = Instant::now();
        reset_dirty_rings(&vm.fd(), released).expect("nobody else resets");
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
            ring.size()
        );
    }
}
