//! `dirtyrig sweep`: a matrix of cells, or the main job.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{probes, progress::SweepProgress, results, table};
use crate::{
    analysis::trust,
    commands::{exit, flags::OutputFlags, output::note},
    engine::interrupt::Interrupt,
    machine::require_kvm,
    model::Shard,
    qemu::choice::Choice,
    recording::{Manifest, Recorder, Recording},
    scenario::{file, settings::Settings},
    session::build_target,
    stdout::{data, json},
    sweep::{
        calibration,
        estimate::Estimate,
        execute::execute,
        findings, main_job,
        plan::{Plan, PlannedCell},
    },
};

/// Run every combination of rings, quotas, periods, limiters, guests and vCPUs
///
/// With none of these given it does the main job: it measures what this host dirties unlimited, and then reproduces the
/// published finding on it, in about six minutes. Settings may list several
/// values: `--ring 4096,65536`. Each cell ends when its rate has settled and been measured, or when
/// its time is up. The order is random, its seed recorded. Finished cells survive whatever ends the sweep: go on with
/// `--resume DIR`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig sweep
  dirtyrig sweep --ring 4096,65536 --quota 25,500 --limiter qemu-7.2,qemu-10 --repetitions 3
  dirtyrig sweep sweep.toml --out results/night
  dirtyrig sweep --resume results/night
  dirtyrig sweep sweep.toml --seed 7 --shard 1/4 --out results/night-1

A sweep file has the flags' names as keys:
  ring = [4096, 65536]
  quota = [500, 256, 25]
  limiter = [\"qemu-v11\", \"qemu-7.2\"]
  period = \"1s\"
  repetitions = 3")]
pub struct Args {
    /// TOML file of settings; flags win over it
    #[arg(value_name = "FILE", conflicts_with = "resume")]
    file: Option<PathBuf>,

    /// Continue an interrupted sweep: run the cells that it lacks
    #[arg(long, value_name = "DIR", conflicts_with_all = ["Settings", "out"])]
    resume: Option<PathBuf>,

    /// Run only share K of N of the cells, from 1/N to N/N, chosen so that all shares take about as long. Every share
    /// needs the same settings and the same `--seed`; `dirtyrig merge` puts the recordings together
    #[arg(long, value_name = "K/N", conflicts_with = "resume", allow_negative_numbers = true)]
    shard: Option<Shard>,

    /// Run a cell that the machine disturbed again, up to N times [default: keep it with a mark]
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    repeat_disturbed: Option<u32>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let (plan, mut recorder, interrupt) = match &args.resume {
        Some(dir) => resume(dir)?,
        None => begin(args)?,
    };
    let dir = recorder.dir().to_owned();

    let left = left(&plan, &recorder)?;
    announce(&plan, &left, &dir);
    let mut progress = SweepProgress::new(&plan, left);
    let outcome = execute(&plan, &mut recorder, &build_target, &mut progress, &interrupt);
    progress.end();
    // What is finished counts, whatever happened to the rest; but that is the error to be told.
    let ended = recorder.finish();
    if let Err(error) = outcome {
        note(format_args!(
            "finished cells are kept; go on with `dirtyrig sweep --resume {}`",
            dir.display()
        ));
        return Err(error);
    }
    ended?;
    conclude(&dir, args.output.json)?;
    Ok(exit::OK)
}

/// Everything that can be wrong with what was asked for is found before the first guest runs.
fn begin(args: &Args) -> anyhow::Result<(Plan, Recorder, Interrupt)> {
    let mut settings = match &args.file {
        Some(path) => args.settings.clone().or(file::read(path)?),
        None => args.settings.clone(),
    };
    let name = args
        .shard
        .map_or_else(|| "sweep".to_owned(), |shard| format!("sweep-{}", shard.file_name()));
    let dir = results::folder(args.output.out.as_deref(), &name)?;
    if let Some(shard) = args.shard {
        anyhow::ensure!(
            settings.has_dimensions(),
            "`--shard {shard}` needs to know the cells, and those of the main job depend on the machine: give at least \
             one of `--ring`, `--quota`, `--period`, `--limiter`, `--guest` and `--vcpus`"
        );
        anyhow::ensure!(
            settings.seed.is_some(),
            "`--shard {shard}` needs `--seed N`, the same for every share: all of them must make the same plan"
        );
    }
    let seed = settings.seed.unwrap_or_else(results::seed);
    let choice = Choice::of(&mut settings)?;
    let matrix = settings
        .has_dimensions()
        .then(|| {
            let cells = choice.fitting(settings.combinations());
            Plan::of(cells, settings.repetitions, seed, choice.remarks(&settings))
        })
        .transpose()?;
    let share = match (&matrix, args.shard) {
        (Some(plan), Some(shard)) => Some(shard.cells(plan)?),
        _ => None,
    };
    require_kvm()?;
    let asked = settings.probes.unwrap_or_default();
    let probes = probes::resolve(asked)?;
    let interrupt = Interrupt::from_signals()?;
    let machine = results::machine();
    let mut plan = if let Some(matrix) = matrix {
        matrix
    } else {
        note("the main job; first, how fast does one vCPU dirty memory here?");
        let unlimited = calibration::unlimited_mib_s(&settings, &build_target, &interrupt)?;
        main_job::plan(unlimited, &settings, seed)?
    }
    .with_probes(asked);
    plan.repeat_disturbed = args.repeat_disturbed.unwrap_or_default();
    let cells = share.unwrap_or_else(|| plan.cells.iter().map(|cell| cell.cell).collect());
    let described = serde_json::to_value(&plan).context("can't describe the sweep")?;
    let manifest = Manifest {
        shard: args.shard,
        ..Manifest::new(seed, cells.iter().copied(), machine, described)
    };
    // The manifest keeps what was asked for: shares of one sweep may run where the probes work and where they don't.
    let plan = plan.only(&cells).with_probes(probes);
    Ok((plan, Recorder::create(dir, manifest)?, interrupt))
}

fn resume(dir: &Path) -> anyhow::Result<(Plan, Recorder, Interrupt)> {
    anyhow::ensure!(
        Manifest::read(dir)?.merged_from.is_empty(),
        "{} was put together from other recordings, so its machine is not known to be this one: continue the one that \
         lacks cells where it ran, and merge again",
        dir.display()
    );
    let recorder = Recorder::resume(dir)?;
    let plan: Plan = serde_json::from_value(recorder.manifest().scenario.clone()).with_context(|| {
        format!(
            "{} is no sweep that could be continued: give the folder of a sweep",
            dir.display()
        )
    })?;
    require_kvm()?;
    let probes = probes::resolve(plan.probes())?;
    let plan = plan.only(&recorder.manifest().cells).with_probes(probes);
    Ok((plan, recorder, Interrupt::from_signals()?))
}

/// What the cells to come are expected to take, in the order in which they run.
pub(super) fn left(plan: &Plan, recorder: &Recorder) -> anyhow::Result<VecDeque<Estimate>> {
    let missing = plan.cells.iter().filter(|cell| !recorder.is_finished(cell.cell));
    missing
        .map(|cell: &PlannedCell| Ok(Estimate::of(&cell.scenario()?)))
        .collect()
}

pub(super) fn announce(plan: &Plan, left: &VecDeque<Estimate>, dir: &Path) {
    plan.remarks
        .iter()
        .for_each(|remark| note(format_args!("note: {remark}")));
    let notes: Vec<String> = plan
        .cells
        .iter()
        .filter_map(|cell| cell.scenario().ok())
        .flat_map(|scenario| scenario.notes())
        .collect();
    for (index, line) in notes.iter().enumerate() {
        // Many cells share a ring and its memory.
        if !notes[..index].contains(line) {
            note(format_args!("note: {line}"));
        }
    }
    let total: Estimate = left.iter().copied().sum();
    note(format_args!(
        "{} of {} cells to run, order by seed {}: {total}; results: {}",
        left.len(),
        plan.cells.len(),
        plan.seed,
        dir.display()
    ));
}

/// Prints what the whole recording says, the cells of earlier sessions included.
fn conclude(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let recording = Recording::open(dir)?;
    results::plots(&recording);
    probes::tell(&recording.summaries);
    for line in findings::sentences(&recording.summaries) {
        note(line);
    }
    for line in trust(&recording.manifest.machine, &recording.summaries) {
        note(line);
    }
    note(format_args!("results: {}", dir.display()));
    if as_json {
        json(&recording.summaries)
    } else {
        data(table::of_sweep(&recording.summaries))
    }
}
