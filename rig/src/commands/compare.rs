//! `dirtyrig compare`: the same scenario under several limiters.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{progress::SweepProgress, results, sweep};
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    compare::{self, Style},
    engine::interrupt::Interrupt,
    machine::require_kvm,
    qemu::choice::Choice,
    recording::{Manifest, Recorder, Recording},
    scenario::{
        file,
        settings::{Repetitions, Settings},
    },
    session::build_target,
    stdout::{data, json},
    sweep::{execute::execute, plan::Plan},
};

/// The table of a comparison, beside its recording.
const TABLE: &str = "compare.md";

/// Run the same scenario under several limiters, interleaved and repeated
///
/// Every limiter runs the whole script once a repetition, in random order, sampled every 10 ms. Then each phase, from one
/// change of a limit to the next, is judged: settle time, overshoot, steady-state error, longest stall, what is left of the
/// unlimited rate (for a vCPU that only reads, too) and the CPU time that limiting takes. Medians with their range go to
/// stdout and, as Markdown, to the recording; one figure shows all limiters over time. Finished cells survive whatever
/// ends it: go on with `--resume DIR`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    mut_arg("repetitions", |arg| arg.help("How often each limiter runs the script [default: 3]")),
    mut_arg("limiter", |arg| arg
        .help("What is compared, such as qemu-10,budget,none [default: qemu-7.2,qemu-10,auto-converge,budget]")),
    after_help = "\
Without --quota, --vm-quota and --at it compares at ring 65536, from unlimited to 500, to 100, to 25, to 300 MiB/s.

Examples:
  dirtyrig compare
  dirtyrig compare --limiter qemu-10,budget,budget-ebpf --repetitions 5
  dirtyrig compare --vcpus 2 --guest sequential+reader --quota 50+none --limiter none,auto-converge,budget
  dirtyrig compare --vcpus 2 --vm-quota 100 --limiter budget,ballast --at '5s unplug 1' --at '10s plug 1'
  dirtyrig compare --resume results/DIR"
)]
pub struct Args {
    /// TOML file of settings; flags win over it
    #[arg(value_name = "FILE", conflicts_with = "resume")]
    file: Option<PathBuf>,

    /// Continue an interrupted comparison: run the cells that it lacks
    #[arg(long, value_name = "DIR", conflicts_with_all = ["Settings", "out"])]
    resume: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    output: OutputFlags,
}

/// Repetitions when nothing is said: the fewest that have a median of their own.
const REPETITIONS: u64 = 3;

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (plan, mut recorder, interrupt) = match &args.resume {
        Some(dir) => resume(dir)?,
        None => begin(args)?,
    };
    let dir = recorder.dir().to_owned();

    let left = sweep::left(&plan, &recorder)?;
    sweep::announce(&plan, &left, &dir);
    let mut progress = SweepProgress::new(&plan, left);
    let outcome = execute(&plan, &mut recorder, &build_target, &mut progress, &interrupt);
    progress.end();
    // What is finished counts, whatever happened to the rest; but that is the error to be told.
    let ended = recorder.finish();
    if let Err(error) = outcome {
        note(format_args!(
            "finished cells are kept; go on with `dirtyrig compare --resume {}`",
            dir.display()
        ));
        return Err(error);
    }
    ended?;
    conclude(&dir, args.output.json)?;
    Ok(exit::OK)
}

fn begin(args: &Args) -> anyhow::Result<(Plan, Recorder, Interrupt)> {
    let mut settings = match &args.file {
        Some(path) => args.settings.clone().or(file::read(path)?),
        None => args.settings.clone(),
    };
    settings.repetitions = settings
        .repetitions
        .or_else(|| Some(Repetitions::new(REPETITIONS).expect("the default is in range")));
    let dir = results::folder(args.output.out.as_deref(), "compare")?;
    let seed = settings.seed.unwrap_or_else(results::seed);
    Choice::of(&mut settings)?.has_all(&settings.limiter)?;
    let plan = compare::plan::plan(&settings, seed)?;
    require_kvm()?;
    let interrupt = Interrupt::from_signals()?;
    let machine = results::machine();
    let described = serde_json::to_value(&plan).context("can't describe the comparison")?;
    let cells = plan.cells.iter().map(|cell| cell.cell);
    let manifest = Manifest::new(seed, cells, machine, described);
    Ok((plan, Recorder::create(dir, manifest)?, interrupt))
}

fn resume(dir: &Path) -> anyhow::Result<(Plan, Recorder, Interrupt)> {
    let recorder = Recorder::resume(dir)?;
    let plan = serde_json::from_value::<Plan>(recorder.manifest().scenario.clone());
    let plan = plan.ok().filter(|plan| plan.cells.iter().all(|cell| cell.to_the_end));
    let plan = plan.with_context(|| {
        format!(
            "{} is no comparison that could be continued: give the folder of a comparison",
            dir.display()
        )
    })?;
    require_kvm()?;
    Ok((plan, recorder, Interrupt::from_signals()?))
}

/// Prints what the whole recording says, the cells of earlier sessions included.
fn conclude(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let recording = Recording::open(dir)?;
    results::plots(&recording);
    let rows = compare::rows(&recording)?;
    let path = dir.join(TABLE);
    fs::write(&path, compare::table(&rows, Style::Markdown) + "\n")
        .with_context(|| format!("can't write {}", path.display()))?;
    note(format_args!("results: {}", dir.display()));
    if as_json {
        json(&rows)
    } else {
        data(compare::table(&rows, Style::Plain))
    }
}
