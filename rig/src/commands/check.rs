//! `dirtyrig check`: is a recording worse than its baseline?

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::{
    check::{
        Baseline, Outcome,
        baselines::{self, BASELINES},
        output::{Format, print},
    },
    commands::{exit, output::note},
    recording::Recording,
    stdout::data,
};

/// Check whether a recording is worse than a baseline
///
/// Nothing is run. For each cell that both have, and each figure of it, repetitions are compared by a rank test, corrected
/// for how many comparisons there are: a check of an unchanged limiter flags anything in one case of a hundred. Changes
/// too small to matter are never flagged. A figure has got worse, better, is the same, or there are too few repetitions to
/// tell, and then it says how many would do. Recordings of other machines or settings are refused.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig sweep --quota 100 --repetitions 10 --out results/before
  dirtyrig check results/before --save-baseline main
  dirtyrig sweep --quota 100 --repetitions 10 --out results/after
  dirtyrig check results/after --baseline main
  dirtyrig check results/after --baseline results/before --format md --max-bytes 65536
  dirtyrig check results/after --baseline results --last 5

Exit codes: 0 nothing got worse, 1 something did, 2 an error, such as too few repetitions to tell anything.")]
pub struct Args {
    /// Folder of the recording to be checked
    #[arg(value_name = "CANDIDATE")]
    candidate: PathBuf,

    /// What to compare it with: the folder of a recording, or the name of a kept baseline
    #[arg(long, value_name = "BASE", required_unless_present = "save_baseline")]
    baseline: Option<PathBuf>,

    /// Compare with the last N recordings in the folder BASE that were begun before CANDIDATE and can be compared with it:
    /// their repetitions are pooled, so that their median counts and no single day
    #[arg(long, value_name = "N", requires = "baseline", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,

    /// Keep CANDIDATE as a baseline under this name, in results/baselines; none is ever overwritten
    #[arg(long, value_name = "NAME", conflicts_with_all = ["baseline", "force", "format", "max_bytes"])]
    save_baseline: Option<String>,

    /// How to print what came out
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "table")]
    format: Format,

    /// Longest Markdown in bytes, for a comment that has a limit: what did not change is left out first
    #[arg(long, value_name = "N")]
    max_bytes: Option<usize>,

    /// Compare although machines or scenarios differ; the outcome notes what does
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = Path::new(BASELINES);
    let candidate = Recording::open(&args.candidate)?;
    if let Some(name) = &args.save_baseline {
        if let Some(gaps) = candidate.gaps() {
            note(format_args!("note: {}: {gaps}", candidate.dir.display()));
        }
        let dir = baselines::save(store, name, &candidate)?;
        note(format_args!("kept as baseline `{name}` in {}", dir.display()));
        return Ok(exit::OK);
    }
    let base = args
        .baseline
        .as_deref()
        .expect("it is required unless one is to be kept");
    if let Some(most) = args.max_bytes.filter(|_| args.format != Format::Md) {
        bail!("`--max-bytes {most}` is for `--format md`: only there is anything left out");
    }
    let baseline = match args.last {
        None => Baseline::one(baselines::open(store, base)?),
        Some(most) => {
            let recordings = baselines::before(base, &candidate)?;
            Baseline::last(base, recordings, most as usize, &candidate, args.force)?
        }
    };
    let outcome = Outcome::of(&baseline, &candidate, args.force)?;
    for line in outcome.notes.iter().chain(&outcome.not_compared()) {
        note(format_args!("note: {line}"));
    }
    data(print(&outcome, args.format, args.max_bytes)?)?;
    note(outcome.headline());
    Ok(if outcome.is_regression() {
        exit::CHECK_FAILED
    } else {
        exit::OK
    })
}
