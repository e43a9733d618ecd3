//! Recordings of migrations: a row per pass, and a row a finished migration, which is the commit point.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Manifest, RecordingError, State,
    journal::{self, Journal},
    manifest::now_utc,
    schema::Row,
    table,
    writer::{keep_finished, lock},
};

/// One row per pass.
pub const PASSES: &str = "passes.csv";
/// One row a finished migration.
pub const MIGRATIONS: &str = "migrations.csv";

/// A pass of a migration, as it begins: a row of `passes.csv`. What nobody knows is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassRow {
    /// Number of the migration.
    pub cell: u32,
    /// Number of the pass, as QEMU counts its syncs.
    pub pass: u64,
    /// When it began, from the start.
    pub t_s: f64,
    /// What QEMU knew to be left.
    pub left_mib: f64,
    /// What had been sent.
    pub sent_mib: f64,
    /// Rate of sending over the last 2 s.
    pub rate_mib_s: Option<f64>,
    /// Quota of all vCPUs together from here on.
    pub quota_mib_s: Option<f64>,
    /// Pages pushed to the rings since the last sync.
    pub dirtied_pages: Option<u64>,
    /// Share of the time that QEMU makes every vCPU sleep.
    pub throttle_pct: Option<u64>,
    /// When the migration is expected to be over.
    pub expected_end_s: Option<f64>,
}

/// A migration: a row of `migrations.csv`. What nobody knows is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MigrationRow {
    /// Number of the migration.
    pub cell: u32,
    /// The VMM and its version.
    pub vmm: String,
    /// Who throttled.
    pub strategy: String,
    /// The guest's programs.
    pub guest: String,
    /// How many vCPUs.
    pub vcpus: u64,
    /// Entries of each vCPU's dirty ring.
    pub ring_entries: Option<u32>,
    /// Memory that was to be sent.
    pub memory_mib: f64,
    /// What the link was said to carry.
    pub link_mib_s: f64,
    /// Seed of the guest's random choices.
    pub seed: Option<u64>,
    /// The promise.
    pub promised_total_s: f64,
    /// The promise.
    pub promised_blackout_ms: f64,
    /// The first quota of the plan.
    pub quota_mib_s: Option<f64>,
    /// Whether the guest was to be free in the first pass.
    pub free_first_pass: Option<bool>,
    /// Total time, as planned.
    pub expected_total_s: Option<f64>,
    /// Total time at most, as planned.
    pub bound_total_s: Option<f64>,
    /// Blackout, as planned.
    pub expected_blackout_ms: Option<f64>,
    /// Blackout at most, as planned.
    pub bound_blackout_ms: Option<f64>,
    /// `completed`, `failed`, `cancelled`, or `left` if it goes on.
    pub ended: String,
    /// Whether the promise was kept.
    pub kept: bool,
    /// Why not.
    pub why: String,
    /// From the start until the guest ran at the destination, by its counters; by QEMU's word where they can't be read.
    pub total_s: f64,
    /// QEMU's own figure for the blackout.
    pub qemu_downtime_ms: Option<f64>,
    /// Blackout by the guest's counters.
    pub blackout_ms: Option<f64>,
    /// By how much that may be wrong.
    pub blackout_error_ms: Option<f64>,
    /// The longest time without an access before the stop, by the guest's counters.
    pub longest_stall_ms: Option<f64>,
    /// Accesses before, when no page was logged.
    pub free_mib_s: Option<f64>,
    /// Accesses while pages were logged and nobody limited them.
    pub logged_mib_s: Option<f64>,
    /// Accesses while it was limited.
    pub limited_mib_s: Option<f64>,
    /// When the limit began.
    pub limited_from_s: Option<f64>,
    /// Passes, as QEMU counts its syncs.
    pub passes: u64,
    /// Bytes on the wire.
    pub sent_mib: f64,
    /// Pages that differed at the destination.
    pub differing_pages: Option<u64>,
    /// Whether the machine kept the blackout from being seen to 3 ms.
    pub disturbed: Option<bool>,
}

impl Row for PassRow {
    const FILE: &'static str = PASSES;
    const LATER: &'static [&'static str] = &[];

    fn cell(&self) -> u32 {
        self.cell
    }
}

impl Row for MigrationRow {
    const FILE: &'static str = MIGRATIONS;
    const LATER: &'static [&'static str] = &[];

    fn cell(&self) -> u32 {
        self.cell
    }
}

/// Writes one recording of migrations; only one at a time may have a folder.
#[derive(Debug)]
pub struct MigrationRecorder {
    dir: PathBuf,
    manifest: Manifest,
    passes: Journal,
    migrations: Journal,
    finished: BTreeSet<u32>,
    /// Holds the folder's lock until the recorder is dropped.
    _lock: File,
}

impl MigrationRecorder {
    /// Begins a recording in a folder that does not exist yet or is empty.
    pub fn create(dir: impl Into<PathBuf>, manifest: Manifest) -> Result<Self, RecordingError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|source| RecordingError::write(&dir, source))?;
        let lock = lock(&dir)?;
        let mut entries = fs::read_dir(&dir).map_err(|source| RecordingError::read(&dir, source))?;
        if entries.next().is_some() {
            return Err(RecordingError::FolderNotEmpty { dir });
        }
        Self::open(dir, manifest, BTreeSet::new(), lock)
    }

    /// Continues one after an interruption; passes of a migration that was not finished go.
    pub fn resume(dir: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let dir = dir.into();
        let mut manifest = Manifest::read(&dir)?;
        let lock = lock(&dir)?;
        let finished = read_migrations(&dir)?.iter().map(|row| row.cell).collect();
        keep_finished::<MigrationRow>(&dir.join(MIGRATIONS), &finished)?;
        keep_finished::<PassRow>(&dir.join(PASSES), &finished)?;
        manifest.resumed_utc.push(now_utc());
        manifest.state = State::Running;
        Self::open(dir, manifest, finished, lock)
    }

    fn open(dir: PathBuf, manifest: Manifest, finished: BTreeSet<u32>, lock: File) -> Result<Self, RecordingError> {
        manifest.write(&dir)?;
        let passes = Journal::open(dir.join(PASSES), &table::header::<PassRow>())?;
        let migrations = Journal::open(dir.join(MIGRATIONS), &table::header::<MigrationRow>())?;
        journal::sync_folder(&dir)?;
        Ok(Self {
            dir,
            manifest,
            passes,
            migrations,
            finished,
            _lock: lock,
        })
    }

    /// What it is a recording of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a migration is finished.
    pub fn is_finished(&self, cell: u32) -> bool {
        self.finished.contains(&cell)
    }

    /// Appends a pass of the migration that is under way.
    pub fn append_pass(&mut self, row: &PassRow) -> Result<(), RecordingError> {
        let rows = table::encode(std::slice::from_ref(row), &self.dir.join(PASSES))?;
        self.passes.append(&rows)
    }

    /// Appends a migration that has ended.
    pub fn append_migration(&mut self, row: &MigrationRow) -> Result<(), RecordingError> {
        self.passes.commit()?;
        let rows = table::encode(std::slice::from_ref(row), &self.dir.join(MIGRATIONS))?;
        self.migrations.append(&rows)?;
        self.migrations.commit()?;
        self.finished.insert(row.cell);
        Ok(())
    }

    /// Ends it in good order.
    pub fn finish(mut self) -> Result<(), RecordingError> {
        let is_complete = self.manifest.cells.iter().all(|cell| self.finished.contains(cell));
        self.manifest.state = if is_complete {
            State::Complete
        } else {
            State::Interrupted
        };
        self.manifest.write(&self.dir)
    }
}

/// The finished migrations of the recording in `dir`.
pub fn read_migrations(dir: &Path) -> Result<Vec<MigrationRow>, RecordingError> {
    Ok(table::read::<MigrationRow>(&dir.join(MIGRATIONS))?.rows)
}

/// The passes of the recording in `dir`.
pub fn read_passes(dir: &Path) -> Result<Vec<PassRow>, RecordingError> {
    Ok(table::read::<PassRow>(&dir.join(PASSES))?.rows)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::{Map, Value};

    use super::*;

    fn pass(cell: u32, pass: u64) -> PassRow {
        PassRow {
            cell,
            pass,
            quota_mib_s: Some(20.5),
            ..PassRow::default()
        }
    }

    #[test]
    fn what_was_not_finished_is_gone_after_an_interruption_and_the_rest_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let dir = dir.path().join("recording");
        let manifest = Manifest::new(7, 0..2, Map::new(), Value::Null);
        let mut recorder = MigrationRecorder::create(&dir, manifest).expect("an empty folder");
        recorder.append_pass(&pass(0, 1)).expect("written");
        let first = MigrationRow {
            why: "it took 9.0 s, \"instead\" of 8.0 s".to_owned(),
            ..MigrationRow::default()
        };
        recorder.append_migration(&first).expect("written");
        recorder.append_pass(&pass(1, 1)).expect("written");
        assert!(MigrationRecorder::resume(&dir).is_err(), "somebody writes it");
        drop(recorder);
        let mut file = File::options()
            .append(true)
            .open(dir.join(PASSES))
            .expect("it is there");
        file.write_all(b"1,2,0.").expect("a torn row");

        let mut recorder = MigrationRecorder::resume(&dir).expect("it can go on");
        assert!(recorder.is_finished(0) && !recorder.is_finished(1));
        assert_eq!(read_passes(&dir).expect("read"), [pass(0, 1)]);
        assert_eq!(read_migrations(&dir).expect("read"), [first]);
        let second = MigrationRow {
            cell: 1,
            ..MigrationRow::default()
        };
        recorder.append_migration(&second).expect("written");
        recorder.finish().expect("ended");
        assert_eq!(Manifest::read(&dir).expect("read").state, State::Complete);
    }
}
