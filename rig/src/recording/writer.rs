//! Writes a recording as it happens.
//!
//! A cell goes `samples and stalls appended -> summary appended -> finished`; the summary is the commit point. Appended
//! rows are with the operating system at once (they survive kill -9); at a cell's end samples and stalls are forced to
//! the disk *before* its summary is, so that a summary on the disk always has its samples beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    EXITS, Manifest, Recording, RecordingError, RowCounts, SAMPLES, STALLS, SUMMARY, StallInterval, State,
    journal::{self, Journal},
    manifest::now_utc,
    schema::Row,
    stalls::{self, Clock, Place},
    table,
};
use crate::model::{ExitRow, KernelStall, Sample, Stall, Summary};

/// Writes one recording; only one at a time may have a folder.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    manifest: Manifest,
    finished: BTreeSet<u32>,
    samples: Journal,
    stalls: Journal,
    exits: Journal,
    summaries: Journal,
    /// The clock of the log of pauses; `opened_at` is where it stood at `opened`.
    stall_clock: Clock,
    opened: Instant,
    opened_at: Duration,
    /// Rows of finished cells.
    rows: RowCounts,
    /// Rows of the cell that is being run.
    pending: RowCounts,
    /// Holds the folder's lock until the recorder is dropped.
    _lock: File,
}

impl Recorder {
    /// Begins a recording in a folder that does not exist yet or is empty.
    pub fn create(dir: impl Into<PathBuf>, manifest: Manifest) -> Result<Self, RecordingError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|source| RecordingError::write(&dir, source))?;
        let lock = lock(&dir)?;
        let mut entries = fs::read_dir(&dir).map_err(|source| RecordingError::read(&dir, source))?;
        if entries.next().is_some() {
            return Err(RecordingError::FolderNotEmpty { dir });
        }
        Self::open(
            dir,
            manifest,
            BTreeSet::new(),
            RowCounts::default(),
            fresh_clock(),
            lock,
        )
    }

    /// Continues a recording after an interruption: a torn last row goes, and so do the rows of cells that were not
    /// finished, because those cells will be run again from their start.
    pub fn resume(dir: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let dir = dir.into();
        let mut manifest = Manifest::read(&dir)?;
        let lock = lock(&dir)?;
        if manifest.state != State::Running {
            // It ended in good order, so nothing may be torn or gone: what is, is damage, and no reason to drop rows.
            let recording = Recording::open(&dir)?;
            recording.stalls()?;
            recording.exits()?;
        }
        let summary = dir.join(SUMMARY);
        let finished = match table::read::<Summary>(&summary) {
            Ok(table) => finished_cells(&table.rows),
            // A crash right after the beginning left no tables yet; `open` makes them.
            Err(RecordingError::MissingFile { .. }) if has_no_samples(&dir)? => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let summaries = keep_finished::<Summary>(&summary, &finished)?;
        let samples = keep_finished::<Sample>(&dir.join(SAMPLES), &finished)?;
        let exits = match keep_finished::<ExitRow>(&dir.join(EXITS), &finished) {
            // Begun before there was this file.
            Err(RecordingError::MissingFile { .. }) => 0,
            rows => rows?,
        };
        let (stall_intervals, stall_clock) = keep_finished_stalls(&dir.join(STALLS), &manifest, &finished)?;
        manifest.resumed_utc.push(now_utc());
        manifest.state = State::Running;
        manifest.rows = None;
        let rows = RowCounts {
            samples,
            summaries,
            stall_intervals,
            exits,
        };
        Self::open(dir, manifest, finished, rows, stall_clock, lock)
    }

    fn open(
        dir: PathBuf,
        manifest: Manifest,
        finished: BTreeSet<u32>,
        rows: RowCounts,
        stall_clock: Clock,
        lock: File,
    ) -> Result<Self, RecordingError> {
        manifest.write(&dir)?;
        let samples = Journal::open(dir.join(SAMPLES), &table::header::<Sample>())?;
        let stalls = Journal::open(dir.join(STALLS), &stalls::header(&stall_clock))?;
        let exits = Journal::open(dir.join(EXITS), &table::header::<ExitRow>())?;
        let summaries = Journal::open(dir.join(SUMMARY), &table::header::<Summary>())?;
        journal::sync_folder(&dir)?;
        let opened_at = since_epoch().saturating_sub(stall_clock.start()).max(stall_clock.end());
        Ok(Self {
            stall_clock,
            opened: Instant::now(),
            opened_at,
            dir,
            manifest,
            finished,
            samples,
            stalls,
            exits,
            summaries,
            rows,
            pending: RowCounts::default(),
            _lock: lock,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest as it is on disk.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a cell's summary is written.
    pub fn is_finished(&self, cell: u32) -> bool {
        self.finished.contains(&cell)
    }

    /// The planned cells that are still to be run, in ascending order.
    pub fn missing(&self) -> impl Iterator<Item = u32> {
        self.manifest.cells.difference(&self.finished).copied()
    }

    /// Plans one more cell, where what is to be run follows from what was found: its number.
    pub fn plan_cell(&mut self) -> Result<u32, RecordingError> {
        let cell = self.manifest.cells.last().map_or(0, |last| last + 1);
        self.manifest.cells.insert(cell);
        self.manifest.write(&self.dir)?;
        Ok(cell)
    }

    /// Appends samples of the cell that is being run.
    pub fn append_samples(&mut self, samples: &[Sample]) -> Result<(), RecordingError> {
        self.samples.append(&table::encode(samples, &self.dir.join(SAMPLES))?)?;
        self.pending.samples += samples.len() as u64;
        Ok(())
    }

    /// Appends the pauses that one interval of the cell that is being run had. `interval` is on the cell's clock, on
    /// which 0 is where `t_s` is 0; pauses of the warm-up don't belong here.
    pub fn append_stalls(
        &mut self,
        cell: u32,
        interval: &Range<Duration>,
        stalls: &[Stall],
    ) -> Result<(), RecordingError> {
        self.append_intervals(
            &stalls::of_limiter(cell, interval, stalls),
            Place::Now(self.stall_now()),
        )
    }

    /// Appends the pauses that the kernel saw in the same interval.
    pub fn append_kernel_stalls(
        &mut self,
        cell: u32,
        interval: &Range<Duration>,
        stalls: &[KernelStall],
    ) -> Result<(), RecordingError> {
        self.append_intervals(&stalls::of_kernel(cell, interval, stalls), Place::Now(self.stall_now()))
    }

    fn append_intervals(&mut self, intervals: &[StallInterval], place: Place<'_>) -> Result<(), RecordingError> {
        let mut clock = self.stall_clock.clone();
        self.stalls.append(&stalls::encode(intervals, &mut clock, place))?;
        self.stall_clock = clock;
        self.pending.stall_intervals += intervals.len() as u64;
        Ok(())
    }

    /// Now, on the clock of the log of pauses.
    fn stall_now(&self) -> Duration {
        self.opened_at + self.opened.elapsed()
    }

    /// Appends the exits of the cell that is being run.
    pub fn append_exits(&mut self, exits: &[ExitRow]) -> Result<(), RecordingError> {
        self.exits.append(&table::encode(exits, &self.dir.join(EXITS))?)?;
        self.pending.exits += exits.len() as u64;
        Ok(())
    }

    /// Takes over a cell that another recording has: its samples and its lines of the log of pauses. Its summaries are to
    /// follow, as for any other cell.
    pub fn copy_cell(&mut self, samples: &[Sample], stalls: &[StallInterval]) -> Result<(), RecordingError> {
        self.append_samples(samples)?;
        self.append_intervals(stalls, Place::Behind)
    }

    /// Finishes a cell: one row for each of its vCPUs. From here on it is never run again.
    pub fn append_summaries(&mut self, cell: u32, summaries: &[Summary]) -> Result<(), RecordingError> {
        self.check_commit(cell, summaries)
            .map_err(|problem| RecordingError::BadCommit { cell, problem })?;
        let rows = table::encode(summaries, &self.dir.join(SUMMARY))?;
        self.samples.commit()?;
        self.stalls.commit()?;
        self.exits.commit()?;
        self.summaries.append(&rows)?;
        self.summaries.commit()?;
        self.finished.insert(cell);
        self.rows.summaries += summaries.len() as u64;
        self.rows.samples += self.pending.samples;
        self.rows.stall_intervals += self.pending.stall_intervals;
        self.rows.exits += self.pending.exits;
        self.pending = RowCounts::default();
        Ok(())
    }

    fn check_commit(&self, cell: u32, summaries: &[Summary]) -> Result<(), String> {
        if !self.manifest.cells.contains(&cell) {
            return Err("the manifest does not plan it".to_owned());
        }
        if self.is_finished(cell) {
            return Err("it is finished already".to_owned());
        }
        if let Some(row) = summaries.iter().find(|row| row.cell != cell) {
            return Err(format!("one of its rows says cell {}", row.cell));
        }
        if !is_whole(summaries) {
            return Err(format!("{} rows are not one for each of its vCPUs", summaries.len()));
        }
        Ok(())
    }

    /// Drops what was appended since the last finished cell, so that the cell can be run again.
    pub fn abandon_cell(&mut self) -> Result<(), RecordingError> {
        self.samples.roll_back()?;
        self.stalls.roll_back()?;
        self.stall_clock.keep(&self.finished);
        self.exits.roll_back()?;
        self.summaries.roll_back()?;
        self.pending = RowCounts::default();
        Ok(())
    }

    /// Ends the recording in good order: complete if every planned cell is finished, interrupted if not.
    pub fn finish(mut self) -> Result<State, RecordingError> {
        let state = if self.missing().next().is_none() {
            State::Complete
        } else {
            State::Interrupted
        };
        self.samples.commit()?;
        self.stalls.commit()?;
        self.exits.commit()?;
        self.manifest.state = state;
        self.manifest.rows = Some(RowCounts {
            samples: self.rows.samples + self.pending.samples,
            summaries: self.rows.summaries,
            stall_intervals: self.rows.stall_intervals + self.pending.stall_intervals,
            exits: self.rows.exits + self.pending.exits,
        });
        self.manifest.write(&self.dir)?;
        Ok(state)
    }
}

/// The cells whose summary is whole.
pub(super) fn finished_cells(summaries: &[Summary]) -> BTreeSet<u32> {
    let mut cells: BTreeMap<u32, Vec<&Summary>> = BTreeMap::new();
    for row in summaries {
        cells.entry(row.cell).or_default().push(row);
    }
    cells.retain(|_, rows| is_whole(rows.iter().copied()));
    cells.into_keys().collect()
}

/// Whether there is one row for each vCPU.
fn is_whole<'a>(rows: impl IntoIterator<Item = &'a Summary>) -> bool {
    let mut vcpus = BTreeSet::new();
    let mut expected = None;
    let mut count = 0;
    for row in rows {
        vcpus.insert(row.vcpu);
        expected = Some(row.vcpus as usize);
        count += 1;
    }
    expected == Some(count) && vcpus.len() == count
}

fn has_no_samples(dir: &Path) -> Result<bool, RecordingError> {
    match table::read::<Sample>(&dir.join(SAMPLES)) {
        Ok(table) => Ok(table.rows.is_empty()),
        Err(RecordingError::MissingFile { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

pub(super) fn lock(dir: &Path) -> Result<File, RecordingError> {
    let folder = File::open(dir).map_err(|source| RecordingError::read(dir, source))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(RecordingError::Busy { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(RecordingError::Io {
            operation: "lock",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Rewrites a table without torn or unfinished rows, where it has any. Returns how many rows stay.
pub(super) fn keep_finished<R: Row>(path: &Path, finished: &BTreeSet<u32>) -> Result<u64, RecordingError> {
    let table = match table::read::<R>(path) {
        Err(RecordingError::MissingFile { .. }) if finished.is_empty() => return Ok(0),
        other => other?,
    };
    let mut rows = table.rows;
    rows.retain(|row| finished.contains(&row.cell()));
    let mut content = table::header::<R>();
    content.extend(table::encode(&rows, path)?);
    replace_if_changed(path, &content)?;
    Ok(rows.len() as u64)
}

/// The same for the log of stalls, which is brought to the version of today. Also its clock.
fn keep_finished_stalls(
    path: &Path,
    manifest: &Manifest,
    finished: &BTreeSet<u32>,
) -> Result<(u64, Clock), RecordingError> {
    let bytes = match fs::read(path).map_err(|source| RecordingError::read(path, source)) {
        Err(RecordingError::MissingFile { .. }) if finished.is_empty() => return Ok((0, fresh_clock())),
        other => other?,
    };
    let mut log = stalls::parse(path, &bytes)?;
    log.intervals.retain(|interval| finished.contains(&interval.cell));
    let mut clock = match log.start {
        Some(start) => Clock::new(start),
        None if log.intervals.is_empty() => fresh_clock(),
        None => Clock::new(manifest.started()),
    };
    let mut content = stalls::header(&clock);
    content.extend(stalls::encode(&log.intervals, &mut clock, Place::Kept(&log.zeros)));
    replace_if_changed(path, &content)?;
    Ok((log.intervals.len() as u64, clock))
}

/// A clock for a log that begins now.
fn fresh_clock() -> Clock {
    Clock::new(since_epoch())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn replace_if_changed(path: &Path, content: &[u8]) -> Result<(), RecordingError> {
    let bytes = fs::read(path).map_err(|source| RecordingError::read(path, source))?;
    if bytes == content {
        return Ok(());
    }
    journal::replace(path, content)
}
