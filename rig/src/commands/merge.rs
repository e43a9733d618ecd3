//! `dirtyrig merge`: the shares of a sweep, put together.

use std::path::PathBuf;

use crate::{
    commands::{exit, output::note},
    recording::Recording,
    stdout::data,
    sweep::{findings, merge},
};

/// Put the recordings of a sweep's shares together
///
/// Takes the finished cells of recordings that have the same plan, such as those of `sweep --shard`, into one recording.
/// Nothing is merged where a cell is finished twice, where plans or builds of dirtyrig differ, or where machines differ
/// and the recordings are no shares. The manifest then says which cells came from where. The recordings given stay as
/// they are; cells that none of them has finished are told as missing.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig merge results/night-1 results/night-2 --out results/night
  dirtyrig merge results/night-* --out results/night && dirtyrig report results/night")]
pub struct Args {
    /// Folders of recordings
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,

    /// Folder for the recording made of them; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Merges, and prints the folder.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let parts = args.dirs.iter().map(Recording::open).collect::<Result<Vec<_>, _>>()?;
    for part in &parts {
        if let Some(gaps) = part.gaps() {
            note(format_args!("note: {}: {gaps}", part.dir.display()));
        }
    }
    let merged = merge::merge(&parts, &args.out)?;
    if let Some(gaps) = merged.gaps() {
        note(format_args!("note: {}: {gaps}", merged.dir.display()));
    }
    for line in findings::sentences(&merged.summaries) {
        note(line);
    }
    data(merged.dir.display())?;
    Ok(exit::OK)
}
