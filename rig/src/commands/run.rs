//! `dirtyrig run`: one scenario.

use std::path::PathBuf;

use anyhow::Context;

use super::{probes, progress::Live, results, table};
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    engine::{Interrupted, interrupt::Interrupt},
    machine::require_kvm,
    qemu::choice::Choice,
    recording::{Manifest, Recorder, Recording},
    scenario::{End, Scenario, file, settings::Settings},
    session::build_target,
    stdout::{data, json},
    sweep::execute::run_on,
    timeline::{Timeline, WithTimeline},
};

/// Run one guest under one limiter
///
/// The guest first runs unlimited, so that its rate without a limit is known; then the quotas are set, and changed as
/// the script says. Rates go to stderr while it runs, a summary to stdout, and a recording with its plots to a folder.
#[derive(clap::Args, Clone, Debug)]
#[command(
    mut_arg("repetitions", |arg| arg.hide(true)),
    after_help = "\
Examples:
  dirtyrig run --ring 65536 --quota 25
  dirtyrig run --limiter qemu-10 --ring 16384 --quota 64 --period 500ms --duration 30s
  dirtyrig run --vcpus 2 --guest sequential+reader --quota 100+none --json
  dirtyrig run --vcpus 2 --vm-quota 100 --quota 25+none --limiter budget --at '10s set-vm 50'
  dirtyrig run --vcpus 2 --at '10s set 500 all' --at '30s cancel 0' --at '40s unplug 1'
  dirtyrig run scenario.toml --quota 50

A scenario file has the flags' names as keys:
  ring = 65536
  quota = 25
  period = \"1s\"
  at = [\"10s set 500 all\", \"30s cancel 0\"]"
)]
pub struct Args {
    /// TOML file of settings; flags win over it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    /// Also write a timeline of pauses and rates, for Perfetto (ui.perfetto.dev); the file must not exist
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    timeline: Option<PathBuf>,

    #[command(flatten)]
    output: OutputFlags,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut settings = match &args.file {
        Some(path) => args.settings.clone().or(file::read(path)?),
        None => args.settings.clone(),
    };
    let seed = settings.seed.unwrap_or_else(rand::random);
    Choice::of(&mut settings)?;
    let mut scenario = Scenario::new(&settings, seed, End::AtDuration)?;
    let dir = results::folder(args.output.out.as_deref(), &format!("run-{}", scenario.vm.limiter.kind))?;
    scenario
        .notes()
        .iter()
        .for_each(|line| note(format_args!("note: {line}")));

    require_kvm()?;
    let described = serde_json::to_value(scenario.settings()).context("can't describe the scenario")?;
    scenario.probes = probes::resolve(scenario.probes)?;
    let interrupt = Interrupt::from_signals()?;
    let machine = results::machine();
    let timeline = args.timeline.as_deref().map(Timeline::create).transpose()?;
    let target = build_target(&scenario.vm).context("can't start the guest")?;
    let mut recorder = Recorder::create(dir.clone(), Manifest::new(seed, [0], machine, described))?;

    let mut live = Live::new(&scenario);
    let outcome = WithTimeline::new(&mut recorder, timeline, "dirtyrig run")
        .and_then(|mut sink| run_on(target, (0, 0), &scenario, &mut sink, &mut live, &interrupt));
    live.end();
    let summaries = match outcome {
        Ok((_, summaries)) => summaries,
        Err(error) => {
            recorder.finish()?;
            if error.is::<Interrupted>() {
                note(format_args!("the samples until then are in {}", dir.display()));
            }
            return Err(error);
        }
    };
    recorder.append_summaries(0, &summaries)?;
    recorder.finish()?;
    results::plots(&Recording::open(&dir)?);
    probes::tell(&summaries);
    note(format_args!("results: {}", dir.display()));
    if args.output.json {
        json(&summaries)?;
    } else {
        data(table::of_cell(&summaries))?;
        table::reasons(&summaries).into_iter().for_each(note);
    }
    Ok(exit::OK)
}
