//! The probes against tracefs's own record of the same events, on a kernel whose `kvm_exit` and `kvm_entry` fire:
//! `cargo xtask kernels` boots some and runs this in each. It needs root, tracefs, KVM, and the kernel to itself.
//!
//! Both watch the whole life of a small guest, so every count must be equal, exit reasons by name included. Then the pages of VMs
//! with a dirty bitmap against the bitmap itself.

#[path = "kernel_check/bitmap.rs"]
mod bitmap;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use dirtyrig_probes::{
    Event, KvmEvent, Options, Probes, SourceStatus, Stall, StallCause, StallEnd, Target, VcpuCounters, page_sources,
};
use support::{Guest, Shape};

const SHAPE: Shape = Shape {
    ring_entries: 1024,
    vcpus: 2,
    pages_per_vcpu: 2048,
};
/// Enough for some full rings; every page is a fault in an emulated CPU.
const PAGES: u64 = 4000;
/// For each CPU: some ten times what a guest like this leaves.
const TRACE_KIB: &str = "65536";
const EVENTS: [&str; 6] = [
    "kvm_exit",
    "kvm_entry",
    "kvm_userspace_exit",
    "kvm_dirty_ring_push",
    "kvm_dirty_ring_reset",
    "kvm_dirty_ring_exit",
];

fn main() {
    let tracefs = Tracefs::begin(Path::new("/sys/kernel/tracing"));
    let mut probes = Probes::attach(&Options::new(Target::Pid(std::process::id()))).expect("the probes attach");
    let mut guest = Guest::new(SHAPE);
    guest.start(
        &Arc::new(AtomicBool::new(true)),
        &(Arc::new(|_, _| {}) as support::AfterExit),
    );
    for vcpu in 0..SHAPE.vcpus {
        guest.wait_for(vcpu, PAGES);
    }
    guest.stop();
    let traced = tracefs.end();

    let mut stalls = Vec::new();
    probes
        .drain(|event| {
            if let Event::Stall(stall) = event {
                stalls.push(stall);
            }
        })
        .expect("the buffers are there");
    let (vcpus, status) = (
        probes.vcpus().expect("the maps are there"),
        probes.status().expect("the maps are there"),
    );
    print!("{status}");
    assert!(!status.lost.any(), "something was lost");
    assert_eq!(vcpus.len(), SHAPE.vcpus, "threads seen");
    for index in 0..SHAPE.vcpus {
        let thread = guest.thread(index);
        let seen = vcpus.iter().find(|vcpu| vcpu.thread == thread).expect("it was seen");
        compare(seen, traced.get(&thread).expect("tracefs saw it"), &stalls);
    }
    for event in [KvmEvent::Exit, KvmEvent::Entry] {
        let fired = status.event(event).map_or(0, |event| event.fired);
        assert!(fired > 0, "{event} is there to fire on this kernel");
    }
    println!("the probes agree with tracefs");
    // A process is taken to have VMs with rings or VMs with bitmaps.
    drop((probes, guest));

    for vcpus in [1, 2] {
        bitmap::check(vcpus);
    }
    println!("the probes agree with the bitmap");
    bitmap::check_quota();
    for SourceStatus { source, works, .. } in page_sources().expect("the object loads") {
        match works {
            Ok(()) => println!("{source}: works"),
            Err(why) => println!("{source}: {why}"),
        }
    }
}

/// Compares what the probes saw of one vCPU with what tracefs recorded of it.
fn compare(seen: &VcpuCounters, traced: &Traced, stalls: &[Stall]) {
    let hardware = seen.exit_reasons.iter().filter(|exit| exit.reason.is_hardware());
    let reasons: BTreeMap<String, u64> = hardware.map(|exit| (exit.name.clone(), exit.count)).collect();
    println!(
        "vCPU {:?}: {reasons:?}, {} entries, {} pages",
        seen.vcpu, seen.entries, seen.pushed_pages
    );
    assert_eq!(reasons, traced.exit_reasons, "exits by reason");
    for reason in ["npf", "interrupt"] {
        assert!(
            reasons.get(reason).is_some_and(|&count| count > 0),
            "no exit for {reason}"
        );
    }
    let counts = [
        ("kvm_exit", seen.exits),
        ("kvm_entry", seen.entries),
        ("kvm_userspace_exit", seen.userspace_exits),
        ("kvm_dirty_ring_push", seen.pushed_pages),
        ("kvm_dirty_ring_exit", seen.ring_full_exits),
    ];
    for (event, count) in counts {
        assert_eq!(Some(&count), traced.events.get(event), "{event}");
    }
    let own = stalls
        .iter()
        .filter(|stall| stall.thread == seen.thread && stall.cause == StallCause::RingFull);
    let own: Vec<_> = own.collect();
    assert_eq!(own.len() as u64, traced.stalls, "stalls after a full ring");
    assert!(traced.stalls > 0, "the rings were never full");
    assert!(
        own.iter().all(|stall| stall.end == StallEnd::Entry),
        "kvm_entry ends them"
    );
}

/// What tracefs recorded of one thread.
#[derive(Default)]
struct Traced {
    events: BTreeMap<String, u64>,
    exit_reasons: BTreeMap<String, u64>,
    /// Returns for a full ring that an entry followed.
    stalls: u64,
    in_stall: bool,
}

/// tracefs while it records.
struct Tracefs<'a>(&'a Path);

impl<'a> Tracefs<'a> {
    fn begin(root: &'a Path) -> Self {
        let tracefs = Self(root);
        tracefs.set("buffer_size_kb", TRACE_KIB);
        for event in EVENTS {
            tracefs.set(&format!("events/kvm/{event}/enable"), "1");
        }
        tracefs
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Ends the recording and sorts it by thread.
    fn end(self) -> BTreeMap<u32, Traced> {
        for event in EVENTS {
            self.set(&format!("events/kvm/{event}/enable"), "0");
        }
        for cpu in fs::read_dir(self.0.join("per_cpu"))
            .expect("tracefs lists the CPUs")
            .flatten()
        {
            let statistics = fs::read_to_string(cpu.path().join("stats")).expect("each has its statistics");
            assert!(
                statistics.contains("overrun: 0\n"),
                "tracefs itself lost events:\n{statistics}"
            );
        }
        let mut threads: BTreeMap<u32, Traced> = BTreeMap::new();
        let text = fs::read_to_string(self.0.join("trace")).expect("the trace is text");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (thread, event, rest) = parse(line).unwrap_or_else(|| panic!("not understood: {line}"));
            threads.entry(thread).or_default().push(event, rest);
        }
        threads
    }
}

impl Traced {
    fn push(&mut self, event: &str, rest: &str) {
        *self.events.entry(event.to_owned()).or_default() += 1;
        match event {
            "kvm_exit" => {
                let reason = rest.split_once("reason ").map_or(rest, |(_, reason)| reason);
                let reason = reason.split_once(" rip ").map_or(reason, |(reason, _)| reason);
                *self.exit_reasons.entry(reason.to_owned()).or_default() += 1;
            }
            "kvm_userspace_exit" => self.in_stall = rest.contains("KVM_EXIT_DIRTY_RING_FULL") || rest.contains("(31)"),
            "kvm_entry" if self.in_stall => {
                self.in_stall = false;
                self.stalls += 1;
            }
            _ => {}
        }
    }
}

/// Thread, event and the rest of `vcpu0-123     [000] d..1.    12.345678: kvm_exit: vcpu 0 reason npf rip ...`.
fn parse(line: &str) -> Option<(u32, &str, &str)> {
    let (task, rest) = line.split_once(" [")?;
    let (_, thread) = task.trim().rsplit_once('-')?;
    let mut parts = rest.splitn(3, ": ");
    let (_, event, rest) = (parts.next()?, parts.next()?, parts.next()?);
    Some((thread.trim().parse().ok()?, event, rest))
}
