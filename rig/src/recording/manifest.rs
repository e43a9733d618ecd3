//! `manifest.json`: what ran, where, and how far it got.

use std::{collections::BTreeSet, env, fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MANIFEST, RecordingError, journal, schema::SCHEMA_VERSION};
use crate::model::Shard;

/// Everything needed to judge the figures of a recording and to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format, checked before anything else is read.
    pub schema_version: u32,
    /// Version of dirtyrig.
    pub tool_version: String,
    /// Commit that it was built from, with `-dirty` behind it where the source was changed; `unknown` without git.
    pub git_revision: String,
    /// Compiler that built it.
    pub rustc_version: String,
    /// The command and its arguments.
    pub command_line: Vec<String>,
    /// When the recording was begun, in UTC as RFC 3339 has it.
    pub started_utc: String,
    /// When it was continued after an interruption, each time.
    pub resumed_utc: Vec<String>,
    /// Seed of every random choice: the order of cells, the guests' patterns.
    pub seed: u64,
    /// Numbers of the cells that are to be run.
    pub cells: BTreeSet<u32>,
    /// Whether it runs, or how it ended.
    pub state: State,
    /// How many rows the files have, known once it has ended.
    pub rows: Option<RowCounts>,
    /// Facts about the machine, as `doctor` gathers them.
    pub machine: Map<String, Value>,
    /// The scenario or sweep in full, defaults included.
    pub scenario: Value,
    /// Which share of the sweep this is, of how many: `1/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The recordings that were put together to make this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<Origin>,
}

/// A recording that another was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of its folder.
    pub folder: String,
    /// Which share of the sweep it was.
    pub shard: Option<Shard>,
    /// The finished cells that it gave.
    pub cells: BTreeSet<u32>,
    /// The command and its arguments.
    pub command_line: Vec<String>,
    /// When it was begun.
    pub started_utc: String,
    /// When it was continued, each time.
    pub resumed_utc: Vec<String>,
    /// The machine it ran on.
    pub machine: Map<String, Value>,
}

/// How far a recording got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being written, or killed while it was.
    Running,
    /// Every cell is finished.
    Complete,
    /// Ended in good order before every cell was finished.
    Interrupted,
}

/// How many rows the files of an ended recording have, so that a truncated copy is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows of `samples.csv` without the header.
    pub samples: u64,
    /// Rows of `summary.csv` without the header.
    pub summaries: u64,
    /// Intervals of `stalls.hlog`.
    pub stall_intervals: u64,
    /// Rows of `exits.csv` without the header.
    #[serde(default)]
    pub exits: u64,
}

impl Manifest {
    /// The manifest of a run that begins now in this process.
    pub fn new(seed: u64, cells: impl IntoIterator<Item = u32>, machine: Map<String, Value>, scenario: Value) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            git_revision: env!("DIRTYRIG_GIT_REVISION").to_owned(),
            rustc_version: env!("DIRTYRIG_RUSTC").to_owned(),
            command_line: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            started_utc: now_utc(),
            resumed_utc: Vec::new(),
            seed,
            cells: cells.into_iter().collect(),
            state: State::Running,
            rows: None,
            machine,
            scenario,
            shard: None,
            merged_from: Vec::new(),
        }
    }

    /// When the recording was begun, since the epoch; 0 where the manifest does not say it as it should.
    pub(super) fn started(&self) -> Duration {
        let started: Option<jiff::Timestamp> = self.started_utc.parse().ok();
        started.map_or(Duration::ZERO, |at| {
            Duration::try_from(at.as_duration()).unwrap_or_default()
        })
    }

    /// Reads the manifest of the recording in `dir`.
    pub fn read(dir: &Path) -> Result<Self, RecordingError> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|source| match RecordingError::read(&path, source) {
            RecordingError::MissingFile { .. } => RecordingError::NotARecording { dir: dir.to_owned() },
            other => other,
        })?;
        let broken = |source| RecordingError::Manifest {
            path: path.clone(),
            source,
        };
        // The version decides what the rest means, so it is read by itself first.
        let stamp: Stamp = serde_json::from_slice(&text).map_err(broken)?;
        let (found, ours) = (stamp.schema_version, u64::from(SCHEMA_VERSION));
        let tool = stamp.tool_version.unwrap_or_else(|| "of an unknown version".to_owned());
        if found < ours {
            return Err(RecordingError::OlderSchema { path, found, tool });
        }
        if found > ours {
            return Err(RecordingError::NewerSchema { path, found, tool });
        }
        serde_json::from_slice(&text).map_err(broken)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), RecordingError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        text.push(b'\n');
        journal::replace(&dir.join(MANIFEST), &text)
    }
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
struct Stamp {
    schema_version: u64,
    tool_version: Option<String>,
}

pub(super) fn now_utc() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Second)
        .map_or_else(|_| "unknown".to_owned(), |now| now.to_string())
}
