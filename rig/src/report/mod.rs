//! What recordings say, for someone who was not there: a page, a table to paste, or JSON.
//!
//! [`Report::of`] makes of recordings everything that is said: [`points`] puts repetitions together, [`words`] turns them
//! into sentences. The formats only show it: [`html`], [`markdown`], [`csv`], and JSON, which is the [`Report`] itself as
//! `docs/report-schema.md` describes it. [`definitions`] says what each column means.

mod answer;
pub mod csv;
pub mod definitions;
pub mod floors;
pub mod html;
pub mod markdown;
pub mod points;
mod rate;
mod words;
pub mod write;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    model::{Summary, Verdict},
    plot::machine_line,
    recording::{Manifest, Recording, State},
};
use floors::Floor;
use points::{Compared, Point};

/// Version of the JSON; raised when a key changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What every report says of itself, so that one is known again before it is overwritten.
pub const MARK: &str = "dirtyrig-report";

/// Everything that is said of some recordings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`MARK`].
    pub schema: &'static str,
    /// Version of this form.
    pub schema_version: u32,
    /// Version of dirtyrig that made the report.
    pub tool_version: &'static str,
    /// Commit that it was built from.
    pub git_revision: &'static str,
    /// The recordings, as given.
    pub recordings: Vec<Part>,
    /// Settings that more than one of the recordings has, side by side; empty for a single recording.
    pub comparison: Vec<Compared>,
}

/// What is said of one recording.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The folder's name, made unlike the others'.
    pub name: String,
    /// The folder, as given.
    pub folder: String,
    /// The machine in one line.
    pub machine: String,
    /// Whether it is complete, and if not, why.
    pub state: State,
    /// What is missing, in words.
    pub gaps: Option<String>,
    /// The planned cells that are not finished.
    pub missing_cells: Vec<u32>,
    /// What came out, in words.
    pub findings: Vec<String>,
    /// How far the figures can be trusted, in words.
    pub trust: Vec<String>,
    /// How many runs of a vCPU ended with each verdict.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// The lowest rates, by limiter and ring.
    pub floors: Vec<Floor>,
    /// Each combination of settings, its repetitions put together.
    pub points: Vec<Point>,
    /// The rows of `summary.csv`.
    pub rows: Vec<Summary>,
    /// The manifest.
    pub manifest: Manifest,
}

impl Report {
    /// Reads out of `recordings` what is to be said.
    pub fn of(recordings: &[Recording]) -> Self {
        let mut parts: Vec<Part> = recordings.iter().map(part).collect();
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        for (index, part) in parts.iter_mut().enumerate() {
            if names.iter().filter(|name| **name == part.name).count() > 1 {
                part.name = format!("{} ({})", part.name, index + 1);
            }
        }
        Self {
            schema: MARK,
            schema_version: SCHEMA_VERSION,
            tool_version: env!("CARGO_PKG_VERSION"),
            git_revision: env!("DIRTYRIG_GIT_REVISION"),
            comparison: points::compare(parts.iter().map(|part| (part.name.as_str(), &part.points[..]))),
            recordings: parts,
        }
    }
}

fn part(recording: &Recording) -> Part {
    let points = points::points(&recording.summaries);
    let floors = floors::floors(&points);
    let mut verdicts = BTreeMap::new();
    for row in &recording.summaries {
        *verdicts.entry(row.verdict).or_default() += 1;
    }
    Part {
        name: recording.name(),
        folder: recording.dir.display().to_string(),
        machine: machine_line(&recording.manifest.machine),
        state: recording.manifest.state,
        gaps: recording.gaps(),
        missing_cells: recording.missing().into_iter().collect(),
        findings: words::findings(&points, &verdicts),
        trust: words::trust(recording),
        verdicts,
        floors,
        points,
        rows: recording.summaries.clone(),
        manifest: recording.manifest.clone(),
    }
}

#[cfg(test)]
mod tests;
