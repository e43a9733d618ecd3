//! What the probes cost the guest: `cargo bench -p dirtyrig-probes`.
//!
//! One guest dirties memory unlimited, all the time. Each round measures it for a window bare and under each of the
//! probes, in an order that changes from round to round. Each is compared with the bare window of its own round,
//! so that a slow drift of the machine cancels out. A rate is pages to a second of the vCPU thread's own CPU time:
//! what the probes cost is spent on that thread, and another process that takes the CPU for a while is not their cost.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
    thread::sleep,
    time::{Duration, Instant},
};

use dirtyrig_probes::{AttachKind, Options, Probes, Quota, Target};
use dirtyrig_testkit::Need;
use support::{Guest, Shape};

const SHAPE: Shape = Shape {
    ring_entries: 4096,
    vcpus: 1,
    pages_per_vcpu: 32_768,
};
const WINDOW: Duration = Duration::from_millis(250);
/// After attaching, for caches and the patched kernel text to settle.
const SETTLE: Duration = Duration::from_millis(30);
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// What a window runs under.
#[derive(Clone, Copy, PartialEq)]
enum Under {
    Nothing,
    Counting,
    Learning,
    CountingClassic,
    Tracing,
    Quota,
}

const ALL: [(Under, &str); 6] = [
    (Under::Nothing, "bare"),
    (Under::Counting, "counting"),
    (Under::Learning, "counting, a ring is yet unknown"),
    (Under::CountingClassic, "counting, by classic tracepoints"),
    (Under::Tracing, "tracing every page"),
    (Under::Quota, "a quota that is never spent"),
];

fn main() {
    if let Some(missing) = [Need::Kvm, Need::Bpf].into_iter().find(|need| !need.is_met()) {
        println!("not measured: this machine lacks {missing:?}");
        return;
    }
    // `cargo test --all-targets` runs this too, without the flag: one round, to see that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        24
    } else {
        1
    };
    let mut guest = Guest::new(SHAPE);
    guest.start(
        &Arc::new(AtomicBool::new(true)),
        &(Arc::new(|_, _| {}) as support::AfterExit),
    );
    guest.wait_for(0, 2 * SHAPE.pages_per_vcpu as u64);
    let mut rates = vec![Vec::new(); ALL.len()];
    for round in 0..rounds {
        for step in 0..ALL.len() {
            let which = (step + round) % ALL.len();
            rates[which].push(window(&guest, ALL[which].0));
        }
    }
    guest.stop();
    let bare = rates[0].clone();
    println!(
        "{:<34} {:>12} {:>9}  cost, median of {rounds} rounds (quartiles)",
        "", "pages/s CPU", "ns/page"
    );
    for ((_, name), rates) in ALL.iter().zip(&rates) {
        let mut costs: Vec<f64> = rates
            .iter()
            .zip(&bare)
            .map(|(rate, bare)| 100.0 * (1.0 - rate / bare))
            .collect();
        let rate = quantile(&mut rates.clone(), 0.5);
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(&mut costs, share));
        println!(
            "{name:<34} {rate:>12.0} {:>9.0}  {middle:.2} % ({low:.2} to {high:.2})",
            1e9 / rate
        );
    }
}

/// The guest's rate under `under`, in pages to a second of its thread's CPU time.
fn window(guest: &Guest, under: Under) -> f64 {
    let counting = || Options::new(Target::Pid(std::process::id()));
    let mut probes = match under {
        Under::Nothing | Under::Quota => None,
        // Without a drain nothing is learnt.
        Under::Counting | Under::Learning => Some(counting()),
        Under::CountingClassic => Some(Options {
            attach: vec![AttachKind::Tracepoint],
            ..counting()
        }),
        Under::Tracing => Some(counting().tracing()),
    }
    .map(|options| Probes::attach(&options).expect("the needs are met"));
    let quota = (under == Under::Quota).then(|| {
        let quota = Quota::attach(1).expect("the needs are met");
        quota
            .limit(std::process::id(), guest.thread(0), 0, support::KICK as i32)
            .expect("there is a slot 0");
        quota
    });
    sleep(SETTLE);
    // As it is after a moment, or while a vCPU's ring is not known.
    while under == Under::Counting
        && let Some(probes) = &mut probes
        && probes.runs_for_each_page()
    {
        sleep(SETTLE);
        probes.drain(|_| {}).expect("the maps are there");
    }
    // The guest's own counter: its region is so much larger than its ring that every write meets a clean page.
    let (pages, cpu, begin) = (guest.written(0), cpu_time(guest.thread(0)), Instant::now());
    while begin.elapsed() < WINDOW {
        sleep(DRAIN_EVERY);
        if under != Under::Learning
            && let Some(probes) = &mut probes
        {
            probes.drain(|_| {}).expect("the maps are there");
        }
    }
    let rate = (guest.written(0) - pages) as f64 / cpu_time(guest.thread(0)).abs_diff(cpu).as_secs_f64();
    if let Some(probes) = probes {
        assert!(
            !probes.lost().expect("the maps are there").any(),
            "a cost with losses is no cost"
        );
    }
    drop(quota);
    rate
}

fn cpu_time(thread: u32) -> Duration {
    let statistics = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("the thread runs");
    let nanos = statistics.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("schedstat begins with the time on the CPU"))
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
