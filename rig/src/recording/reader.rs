//! Reads a recording back, finished or not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    EXITS, Manifest, RecordingError, SAMPLES, STALLS, SUMMARY, StallInterval, State,
    schema::Row,
    stalls,
    table::{self, Table},
    writer::finished_cells,
};
use crate::model::{ExitRow, Sample, Summary};

/// A recording in memory.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The folder it was read from.
    pub dir: PathBuf,
    /// What ran, where, and how far it got.
    pub manifest: Manifest,
    /// The samples of finished cells.
    pub samples: Vec<Sample>,
    /// The summaries of finished cells.
    pub summaries: Vec<Summary>,
    /// Samples of cells that were not finished: what there is of a cell that was interrupted.
    pub unfinished: Vec<Sample>,
    /// Last rows that were being written when the run was killed, and were skipped.
    pub torn: Vec<Torn>,
}

/// A last row without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Name of the file in the recording.
    pub file: &'static str,
    /// The line, counted from 1 with the header.
    pub line: u64,
}

impl Recording {
    /// Reads the recording in `dir`. One that is running, was killed or was interrupted opens as well, with what it
    /// has: see [`Self::gaps`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let dir = dir.into();
        let manifest = Manifest::read(&dir)?;
        let promised = manifest.rows;
        let samples: Table<Sample> = read(&dir, &manifest, promised.map(|rows| rows.samples))?;
        let summaries: Table<Summary> = read(&dir, &manifest, promised.map(|rows| rows.summaries))?;

        let torn = [(SAMPLES, samples.torn_line), (SUMMARY, summaries.torn_line)];
        let torn = torn
            .into_iter()
            .filter_map(|(file, line)| line.map(|line| Torn { file, line }));
        let finished = finished_cells(&summaries.rows);
        let (samples, unfinished) = samples.rows.into_iter().partition(|row| finished.contains(&row.cell));
        let mut summaries = summaries.rows;
        summaries.retain(|row| finished.contains(&row.cell));
        Ok(Self {
            torn: torn.collect(),
            dir,
            manifest,
            samples,
            summaries,
            unfinished,
        })
    }

    /// The folder's name, for a heading.
    pub fn name(&self) -> String {
        let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        dir.file_name()
            .map_or_else(|| "recording".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The cells whose summary is there.
    pub fn finished(&self) -> BTreeSet<u32> {
        self.summaries.iter().map(|row| row.cell).collect()
    }

    /// The planned cells that are not finished.
    pub fn missing(&self) -> BTreeSet<u32> {
        &self.manifest.cells - &self.finished()
    }

    /// In words what is missing; `None` where nothing is.
    pub fn gaps(&self) -> Option<String> {
        let missing = self.missing();
        let why = match self.manifest.state {
            State::Running => "the run is not over, or was killed",
            State::Interrupted => "the run was interrupted",
            State::Complete => "their rows are gone from summary.csv",
        };
        (!missing.is_empty()).then(|| {
            format!(
                "{} of {} cells are finished; missing: {} ({why})",
                self.manifest.cells.len() - missing.len(),
                self.manifest.cells.len(),
                ranges(&missing)
            )
        })
    }

    /// The histograms of the pauses, those of unfinished cells left out. Read from disk at each call: they are
    /// larger than all the rest.
    pub fn stalls(&self) -> Result<Vec<StallInterval>, RecordingError> {
        let path = self.dir.join(STALLS);
        let bytes = fs::read(&path).map_err(|source| RecordingError::read(&path, source))?;
        let stalls::Log {
            mut intervals,
            torn_line,
            ..
        } = stalls::parse(&path, &bytes)?;
        let promised = self.manifest.rows.map(|rows| rows.stall_intervals);
        // Comments have no rows, so the line is that of the file's end.
        let last_line = table::line_ends(&bytes);
        check_whole(
            &path,
            &self.manifest,
            torn_line,
            promised,
            intervals.len() as u64,
            last_line,
        )?;
        let finished = self.finished();
        intervals.retain(|interval| finished.contains(&interval.cell));
        Ok(intervals)
    }

    /// The exits by reason, those of unfinished cells left out; none where the probes did not watch. Read from disk at
    /// each call.
    pub fn exits(&self) -> Result<Vec<ExitRow>, RecordingError> {
        let promised = self.manifest.rows.map(|rows| rows.exits);
        if promised.unwrap_or(0) == 0 && !self.dir.join(EXITS).exists() {
            // Recordings that were made before there was this file.
            return Ok(Vec::new());
        }
        let mut rows = read::<ExitRow>(&self.dir, &self.manifest, promised)?.rows;
        let finished = self.finished();
        rows.retain(|row| finished.contains(&row.cell));
        Ok(rows)
    }
}

fn read<R: Row>(dir: &Path, manifest: &Manifest, promised: Option<u64>) -> Result<Table<R>, RecordingError> {
    let path = dir.join(R::FILE);
    let table = table::read::<R>(&path)?;
    check_whole(
        &path,
        manifest,
        table.torn_line,
        promised,
        table.rows.len() as u64,
        table.last_line(),
    )?;
    Ok(table)
}

/// A torn last row is what a crash leaves; in a recording that ended in good order it is damage.
fn check_whole(
    path: &Path,
    manifest: &Manifest,
    torn_line: Option<u64>,
    promised: Option<u64>,
    found: u64,
    line: u64,
) -> Result<(), RecordingError> {
    let path = path.to_owned();
    match (torn_line, promised) {
        (Some(line), _) if manifest.state != State::Running => Err(RecordingError::Truncated { path, line }),
        (_, Some(promised)) if found != promised => Err(RecordingError::RowCount {
            path,
            line,
            found,
            promised,
        }),
        _ => Ok(()),
    }
}

/// Numbers with runs drawn together: `1, 4-6`.
pub fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    words.join(", ")
}
