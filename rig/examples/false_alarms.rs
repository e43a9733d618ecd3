//! How often `dirtyrig check` is wrong: runs of the same thing against each other, and against runs that are really slower.
//!
//! ```text
//! cargo build --release -p dirtyrig-rig --example false_alarms
//! target/release/examples/false_alarms POOL --seconds 1600     # measures; may be done in slices, each goes on
//! target/release/examples/false_alarms POOL                    # judges what is there
//! ```
//!
//! Three recordings grow in the folder POOL, in turn, so that none has another hour of the machine than the others: `a`, and
//! two that are slowed down from outside: `slow-20` and `slow-50`. There a process of higher priority takes the vCPU's CPU a
//! quarter of the time, in bursts: a vCPU that is to wake has to wait for the burst's end. Each run is used once:
//! consecutive runs of a pool make a set, sets that follow one another are compared as two sweeps would be, by the code behind
//! `dirtyrig check`, all its figures included.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use dirtyrig_rig::{
    analysis::stats::median,
    check::{Verdict, compare},
    engine::{Interrupted, cell::Watch, interrupt::Interrupt},
    machine::{Facts, require_kvm},
    model::{Sample, Summary},
    recording::{Manifest, Recorder, Recording},
    scenario::{Scenario, script::Event},
    session::build_target,
    sweep::{
        execute::{SweepWatch, execute},
        plan::{Plan, PlannedCell},
    },
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, getppid},
};

/// Repetitions a side of a comparison.
const SIDE: usize = 8;
/// Comparisons of `a` with itself, and with each of the others.
const SAME: usize = 40;
const SLOWED: usize = 20;

/// One short cell: a limiter whose pauses are short, so that a late timer shows.
const CELL: &str = "ring = 4096\nquota = 100\nlimiter = 'budget'\nperiod = '100ms'\nmemory = 64\nwarm-up = '400ms'\n\
                    duration = '1s'\nrepetitions = 640";

/// The pools, and the bursts of the process beside the vCPU in microseconds, chosen on pilot runs of which none is in the
/// pools.
const POOLS: [(&str, Option<u64>); 3] = [("a", None), ("slow-20", Some(2400)), ("slow-50", Some(2800))];

/// Where the vCPU runs in all of them, and the process beside it.
const CPU: usize = 1;

/// In which order the pools are served: four runs of `a` for one of each other, which is how many are needed.
const TURN: [usize; 6] = [0, 1, 0, 0, 2, 0];

#[derive(Parser)]
struct Args {
    /// Folder of the three recordings
    pool: PathBuf,

    /// Measure for so long before judging; goes on where it ended
    #[arg(long, default_value_t = 0)]
    seconds: u64,

    /// Be the process beside the vCPU, with bursts of so many microseconds
    #[arg(long, hide = true)]
    hog_us: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(burst_us) = args.hog_us {
        return hog(Duration::from_micros(burst_us));
    }
    if args.seconds > 0 {
        measure(&args.pool, Duration::from_secs(args.seconds))?;
    }
    judge(&args.pool)
}

/// Pins the vCPU's thread at its first sample, while the guest is still unlimited.
struct Pinned(bool);

impl Watch for Pinned {
    fn sampled(&mut self, _: &[Sample]) {
        if !std::mem::replace(&mut self.0, true) {
            pin_vcpus().expect("threads of this process can be pinned");
        }
    }

    fn changed(&mut self, _: Event) {}
}

impl SweepWatch for Pinned {
    fn began(&mut self, _: &PlannedCell, _: &Scenario) {
        self.0 = false;
    }

    fn finished(&mut self, _: &PlannedCell, _: &[Summary]) {}
}

fn measure(pool: &Path, length: Duration) -> anyhow::Result<()> {
    require_kvm()?;
    let clock = Interrupt::from_signals()?;
    let end = Instant::now() + length;
    // No run is done again because it was disturbed: the process beside the vCPU disturbs, and would be repeated away.
    let plan = Plan::matrix(&toml::from_str(CELL)?, 1)?;
    let mut recorders = Vec::new();
    for (name, _) in POOLS {
        recorders.push(open(&pool.join(name), &plan)?);
    }
    // The whole turn or nothing of it, so that every pool has its share of each hour.
    'turns: while Instant::now() < end {
        for pool in TURN {
            let (recorder, (_, burst_us)) = (&mut recorders[pool], POOLS[pool]);
            let Some(planned) = plan.cells.iter().find(|cell| !recorder.is_finished(cell.cell)) else {
                break 'turns;
            };
            let one = Plan {
                cells: vec![planned.clone()],
                ..plan.clone()
            };
            let hog = burst_us.map(Hog::start).transpose()?;
            let outcome = execute(&one, recorder, &build_target, &mut Pinned(false), &clock);
            drop(hog);
            match outcome {
                Err(error) if error.is::<Interrupted>() => break 'turns,
                other => other?,
            }
        }
    }
    for recorder in recorders {
        recorder.finish()?;
    }
    Ok(())
}

fn open(dir: &Path, plan: &Plan) -> anyhow::Result<Recorder> {
    if dir.join("manifest.json").exists() {
        return Ok(Recorder::resume(dir)?);
    }
    let cells = plan.cells.iter().map(|cell| cell.cell);
    let manifest = Manifest::new(plan.seed, cells, Facts::gather().to_map(), serde_json::to_value(plan)?);
    Ok(Recorder::create(dir, manifest)?)
}

fn pin(thread: Pid) -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(CPU)?;
    sched_setaffinity(thread, &cpus).with_context(|| format!("can't pin a thread to CPU {CPU}"))
}

fn pin_vcpus() -> anyhow::Result<()> {
    let mut found = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.starts_with("vcpu") {
            pin(Pid::from_raw(task.file_name().to_string_lossy().parse()?))?;
            found += 1;
        }
    }
    anyhow::ensure!(found > 0, "no thread of a vCPU was found");
    Ok(())
}

/// A process of its own beside the vCPU; ends when dropped.
struct Hog(Child);

impl Hog {
    fn start(burst_us: u64) -> anyhow::Result<Self> {
        let child = Command::new("chrt")
            .args(["-f", "10"])
            .arg(env::current_exe()?)
            .args(["unused", "--hog-us", &burst_us.to_string()])
            .spawn()
            .context("can't start `chrt`, which is in util-linux")?;
        Ok(Self(child))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes the CPU for a burst, leaves it for three times as long, until the parent is gone.
fn hog(burst: Duration) -> anyhow::Result<()> {
    pin(Pid::this())?;
    let parent = getppid();
    while getppid() == parent {
        let begun = Instant::now();
        while begun.elapsed() < burst {
            std::hint::spin_loop();
        }
        thread::sleep(3 * burst);
    }
    Ok(())
}

fn judge(pool: &Path) -> anyhow::Result<()> {
    let mut pools = Vec::new();
    for (name, _) in POOLS {
        let mut rows = Recording::open(pool.join(name))?.summaries;
        rows.sort_by_key(|row| row.repetition);
        pools.push(rows);
    }
    let sets: Vec<Vec<&[Summary]>> = pools.iter().map(|rows| rows.chunks_exact(SIDE).collect()).collect();
    println!("| comparison | runs | p99 of stalls, us | change | comparisons | flagged | by p99 of stalls |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let same: Vec<_> = sets[0]
        .chunks_exact(2)
        .take(SAME)
        .map(|pair| (pair[0], pair[1]))
        .collect();
    line("a, a", &pools[0], &pools[0], &same);
    for slow in 1..POOLS.len() {
        // The set of `a` that was measured in the same minutes.
        let pairs: Vec<_> = sets[0]
            .iter()
            .step_by(4)
            .zip(&sets[slow])
            .take(SLOWED)
            .map(|(base, slow)| (*base, *slow))
            .collect();
        line(&format!("a, {}", POOLS[slow].0), &pools[0], &pools[slow], &pairs);
    }
    Ok(())
}

fn line(name: &str, base: &[Summary], other: &[Summary], pairs: &[(&[Summary], &[Summary])]) {
    let p99 = |rows: &[Summary]| median(&rows.iter().filter_map(|row| row.stall_p99_us).collect::<Vec<_>>());
    let (mut any, mut by_p99) = (0, 0);
    for (base, other) in pairs {
        let flagged: Vec<_> = compare(base, other)
            .into_iter()
            .filter(|one| matches!(one.verdict, Verdict::Regressed | Verdict::Improved))
            .map(|one| one.metric.name)
            .collect();
        any += usize::from(!flagged.is_empty());
        by_p99 += usize::from(flagged.contains(&"stall_p99_us"));
    }
    println!(
        "| {name} | {} | {:.0} | {:+.1} % | {} | {any} | {by_p99} |",
        other.len(),
        p99(other),
        100.0 * (p99(other) / p99(base) - 1.0),
        pairs.len()
    );
}
