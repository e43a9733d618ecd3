//! What watching every VM costs processes that are no VM: `cargo bench -p dirtyrig-probes --bench bystander`.
//!
//! This process has no VM. It makes a system call, an `ioctl`, or none, over and over, bare and while the host's VMs are
//! watched, in turns; each round is compared with itself, so that a slow drift of the machine cancels out. Times are of the
//! thread's own CPU time. The kernel's tracepoint of `ioctl` is the reason to ask: once anyone uses a tracepoint of system
//! calls, every system call of every process passes the kernel's slow path.

use std::{hint::black_box, thread::sleep, time::Duration};

use dirtyrig_probes::{Options, Probes, Target};
use dirtyrig_testkit::Need;
use nix::time::{ClockId, clock_gettime};

/// After attaching, for caches and the patched kernel text to settle.
const SETTLE: Duration = Duration::from_millis(30);

fn main() {
    if !Need::Bpf.is_met() {
        println!("not measured: this machine lacks {:?}", Need::Bpf);
        return;
    }
    // `cargo test --all-targets` runs this too, without the flag: one round, to see that it works.
    let (rounds, calls) = if std::env::args().any(|argument| argument == "--bench") {
        (24, 1_000_000)
    } else {
        (1, 1_000)
    };
    println!(
        "{:<24} {:>10} {:>10}  cost in ns, median of {rounds} rounds (quartiles)",
        "", "bare, ns", "watched"
    );
    let subjects: [(&str, fn()); 3] = [
        ("no system call", nothing),
        ("a system call (getppid)", system_call),
        ("an ioctl", ioctl),
    ];
    for (name, subject) in subjects {
        let (mut bare, mut watched) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            for step in 0..2 {
                let probes = ((round + step) % 2 == 1)
                    .then(|| Probes::attach(&Options::new(Target::AllKvm)).expect("the need is met"));
                sleep(SETTLE);
                let times = if probes.is_some() { &mut watched } else { &mut bare };
                times.push(ns_per_call(subject, calls));
            }
        }
        let mut costs: Vec<f64> = watched
            .iter()
            .zip(&bare)
            .map(|(watched, bare)| watched - bare)
            .collect();
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(&mut costs, share));
        println!(
            "{name:<24} {:>10.1} {:>10.1}  {middle:.1} ({low:.1} to {high:.1})",
            quantile(&mut bare, 0.5),
            quantile(&mut watched, 0.5)
        );
    }
}

fn nothing() {
    // Some 50 ns of arithmetic.
    black_box((0..64_u64).fold(1, |sum, value| black_box(sum ^ value)));
}

fn system_call() {
    black_box(nix::unistd::getppid());
}

fn ioctl() {
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes a `c_int` there, or nothing; the descriptor may be of any kind, or closed.
    black_box(unsafe { libc::ioctl(0, libc::FIONREAD, &raw mut waiting) });
}

fn ns_per_call(subject: fn(), calls: u32) -> f64 {
    let begun = cpu_time();
    for _ in 0..calls {
        subject();
    }
    cpu_time().abs_diff(begun).as_secs_f64() * 1e9 / f64::from(calls)
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every thread has that clock")
        .into()
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
