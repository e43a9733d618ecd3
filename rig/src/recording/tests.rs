//! Recordings written, killed, filled up, damaged and read back.

mod crash;
mod damage;
mod full_disk;

use std::{collections::BTreeSet, path::Path, time::Duration};

use proptest::prelude::*;
use serde_json::{Map, json};

use super::{schema::Row, *};
use crate::model::{ExitRow, ExitSource, KernelStall, Sample, Stall, Summary, Verdict};

/// vCPUs of every cell here.
const VCPUS: u32 = 2;
/// Samples that each vCPU of a cell gets.
const SAMPLES_EACH: u32 = 3;

/// A folder for one test, in memory where there is such a place: thousands of resumes wait for the disk otherwise.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder")
}

fn manifest(cells: u32) -> Manifest {
    let machine = Map::from_iter([("cpu".to_owned(), json!("any"))]);
    Manifest::new(42, 0..cells, machine, json!({ "ring": [4096, 65536] }))
}

fn samples(cell: u32) -> Vec<Sample> {
    (0..SAMPLES_EACH)
        .flat_map(|step| {
            (0..VCPUS).map(move |vcpu| Sample {
                cell,
                vcpu,
                t_s: f64::from(step) * 0.1 - 0.1,
                quota_mib_s: (step > 0).then_some(25.0),
                guest_mib_s: Some(1.0 / 3.0),
                written_pages: Some(u64::from(step) << 40),
                ..Sample::default()
            })
        })
        .collect()
}

fn summaries(cell: u32) -> Vec<Summary> {
    (0..VCPUS)
        .map(|vcpu| Summary {
            cell,
            vcpu,
            vcpus: VCPUS,
            vmm: "rig".to_owned(),
            verdict: Verdict::FloorBound,
            reason: "247 MiB/s is at the floor, \"ring bytes / period\"".to_owned(),
            ..Summary::default()
        })
        .collect()
}

fn stalls() -> Vec<Stall> {
    let stall = |vcpu, length, asked, slept| Stall {
        vcpu,
        at: Duration::ZERO,
        length: Duration::from_micros(length),
        asked: Duration::from_micros(asked),
        slept: Duration::from_micros(slept),
    };
    vec![
        stall(0, 900, 800, 850),
        stall(0, 500, 5_000_000, 480),
        stall(1, 30, 0, 0),
    ]
}

fn kernel_stalls() -> Vec<KernelStall> {
    let stall = |vcpu, length, asked: Option<u64>| KernelStall {
        vcpu,
        at: Duration::ZERO,
        length: Duration::from_micros(length),
        asked: asked.map(Duration::from_micros),
    };
    vec![stall(0, 905, Some(800)), stall(1, 33, None)]
}

fn exits(cell: u32) -> Vec<ExitRow> {
    let row = |source, reason: &str, count| ExitRow {
        cell,
        vcpu: 0,
        source,
        reason: reason.to_owned(),
        count,
    };
    vec![
        row(ExitSource::Userspace, "KVM_EXIT_DIRTY_RING_FULL", Some(7)),
        row(ExitSource::Hardware, "not known: kvm_exit did not fire", None),
    ]
}

/// The first part of a cell: all but its commit.
fn begin_cell(recorder: &mut Recorder, cell: u32) {
    recorder.append_samples(&samples(cell)).expect("samples are appended");
    let second = Duration::from_secs(1);
    recorder
        .append_stalls(cell, &(second..2 * second), &stalls())
        .expect("stalls are appended");
    recorder
        .append_kernel_stalls(cell, &(second..2 * second), &kernel_stalls())
        .expect("the kernel's stalls are appended");
    recorder.append_exits(&exits(cell)).expect("exits are appended");
}

fn run_cell(recorder: &mut Recorder, cell: u32) {
    begin_cell(recorder, cell);
    recorder
        .append_summaries(cell, &summaries(cell))
        .expect("the cell is finished");
}

/// A recording of `cells` planned cells of which the first `finished` are.
fn record(dir: &Path, cells: u32, finished: u32) -> Recorder {
    let mut recorder = Recorder::create(dir, manifest(cells)).expect("the folder is new");
    for cell in 0..finished {
        run_cell(&mut recorder, cell);
    }
    recorder
}

/// A finished recording of one cell, kept until the guard is dropped.
fn finished_recording() -> tempfile::TempDir {
    let dir = folder();
    record(dir.path(), 1, 1).finish().expect("the recording ends");
    dir
}

#[test]
fn what_was_written_is_read_back() {
    let dir = folder();
    let state = record(dir.path(), 2, 2).finish().expect("the recording ends");
    assert_eq!(state, State::Complete);

    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.samples, [samples(0), samples(1)].concat());
    assert_eq!(recording.summaries, [summaries(0), summaries(1)].concat());
    assert_eq!((recording.unfinished.len(), recording.torn.len()), (0, 0));
    assert_eq!(recording.gaps(), None);
    let rows = recording.manifest.rows.expect("an ended recording counts its rows");
    assert_eq!(
        (rows.samples, rows.summaries, rows.stall_intervals, rows.exits),
        (12, 4, 14, 4)
    );
    assert_eq!(
        recording.exits().expect("the exits open"),
        [exits(0), exits(1)].concat()
    );
    assert_eq!(recording.manifest.seed, 42);
    assert!(!recording.manifest.git_revision.is_empty() && recording.manifest.rustc_version.starts_with("rustc"));
}

#[test]
fn a_value_that_is_not_known_is_empty() {
    let dir = folder();
    let mut recorder = Recorder::create(dir.path(), manifest(1)).expect("the folder is new");
    let mut rows = summaries(0);
    rows[0].unlimited_mib_s = None;
    recorder.append_summaries(0, &rows).expect("the cell is finished");
    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.summaries[0].unlimited_mib_s, None);
    let text = std::fs::read_to_string(dir.path().join(SUMMARY)).expect("a table");
    assert!(!text.contains("NaN"), "{text}");
}

#[test]
fn every_pause_is_in_the_log_of_stalls() {
    let dir = finished_recording();
    let intervals = Recording::open(dir.path())
        .and_then(|recording| recording.stalls())
        .expect("the log opens");
    let found: Vec<_> = intervals
        .iter()
        .map(|line| (line.vcpu, line.kind, line.histogram.len(), line.histogram.max() / 1000))
        .collect();
    // Microseconds; three digits are kept.
    assert_eq!(
        found,
        [
            (0, StallKind::Stall, 2, 900),
            (0, StallKind::Lateness, 1, 50),
            (0, StallKind::CutShort, 1, 4_999_610),
            (1, StallKind::Stall, 1, 30),
            (0, StallKind::KernelStall, 1, 905),
            (0, StallKind::Overhead, 1, 105),
            (1, StallKind::KernelStall, 1, 33),
        ]
    );
    assert!(
        intervals
            .iter()
            .all(|line| line.interval == (Duration::from_secs(1)..Duration::from_secs(2)))
    );
}

#[test]
fn the_log_of_stalls_has_the_form_that_other_tools_read() {
    let dir = finished_recording();
    let text = std::fs::read_to_string(dir.path().join(STALLS)).expect("the log is text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "#[Histogram log format version 1.3]");
    assert!(lines[2].starts_with("#[StartTime: ") && lines[3].starts_with("#[BaseTime: "));
    assert_eq!(
        lines[4],
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
    );
    assert_eq!(lines[5], "#[Cell 0: t_s 0 is at 0.000]");
    // Milliseconds; `HISTF` is how base64 begins of the cookie of a compressed V2 histogram.
    assert!(
        lines[6].starts_with("Tag=cell0/vcpu0/stall,1.000,1.000,0.900,HISTF"),
        "{}",
        lines[6]
    );
}

#[test]
fn a_folder_with_anything_in_it_is_refused() {
    let dir = folder();
    std::fs::write(dir.path().join("notes.txt"), "mine").expect("a file is written");
    let refused = Recorder::create(dir.path(), manifest(1)).expect_err("the folder is not empty");
    let text = refused.to_string();
    assert!(text.contains("--out") && text.contains("--resume"), "{text}");
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("the folder is there").count(),
        1,
        "something was written"
    );
}

#[test]
fn two_recorders_cannot_share_a_folder() {
    let dir = folder();
    let recorder = record(dir.path(), 2, 1);
    assert!(matches!(Recorder::resume(dir.path()), Err(RecordingError::Busy { .. })));
    drop(recorder);
    assert!(Recorder::resume(dir.path()).is_ok());
}

#[test]
fn a_cell_is_finished_once_and_by_one_row_for_each_vcpu() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let mut refused = |cell, rows: &[Summary]| match recorder.append_summaries(cell, rows) {
        Err(RecordingError::BadCommit { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(refused(0, &summaries(0)).contains("finished already"));
    assert!(refused(9, &summaries(9)).contains("not plan"));
    assert!(refused(1, &summaries(0)).contains("says cell 0"));
    assert!(refused(1, &summaries(1)[..1]).contains("1 rows"));
    assert!(refused(1, &[]).contains("0 rows"));
    let twice = [summaries(1)[0].clone(), summaries(1)[0].clone()];
    assert!(refused(1, &twice).contains("2 rows"));
    recorder
        .append_summaries(1, &summaries(1))
        .expect("the cell is finished");
}

#[test]
fn a_line_break_in_a_value_is_refused_before_anything_is_written() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    let mut rows = summaries(1);
    rows[1].vmm = "two\nlines".to_owned();
    assert!(matches!(
        recorder.append_summaries(1, &rows),
        Err(RecordingError::LineBreak { .. })
    ));
    run_cell(&mut recorder, 1);
    assert_eq!(Recording::open(dir.path()).expect("the recording opens").gaps(), None);
}

#[test]
fn an_abandoned_cell_leaves_nothing() {
    let dir = folder();
    let mut recorder = record(dir.path(), 2, 1);
    begin_cell(&mut recorder, 1);
    recorder.abandon_cell().expect("the cell is dropped");
    run_cell(&mut recorder, 1);
    recorder.finish().expect("the recording ends");
    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.samples, [samples(0), samples(1)].concat());
    assert_eq!(recording.stalls().expect("the log opens").len(), 14);
    assert_eq!(
        recording.exits().expect("the exits open"),
        [exits(0), exits(1)].concat()
    );
}

#[test]
fn a_half_finished_sweep_opens_and_says_what_is_missing() {
    let dir = folder();
    let mut recorder = Recorder::create(dir.path(), manifest(8)).expect("the folder is new");
    for cell in [5, 0, 2] {
        run_cell(&mut recorder, cell);
    }
    begin_cell(&mut recorder, 7);
    let running = Recording::open(dir.path()).expect("one that runs opens");
    assert_eq!(
        running.gaps().expect("cells are missing"),
        "3 of 8 cells are finished; missing: 1, 3-4, 6-7 (the run is not over, or was killed)"
    );
    assert_eq!(running.unfinished, samples(7));
    assert_eq!(running.finished(), BTreeSet::from([0, 2, 5]));
    assert!(
        running
            .stalls()
            .expect("the log opens")
            .iter()
            .all(|line| line.cell != 7)
    );

    assert_eq!(recorder.finish().expect("the recording ends"), State::Interrupted);
    let ended = Recording::open(dir.path()).expect("one that was interrupted opens");
    assert!(
        ended
            .gaps()
            .expect("cells are missing")
            .ends_with("(the run was interrupted)")
    );
    assert_eq!(ended.unfinished, samples(7));
}

/// Takes from a table the columns that came after the first recordings were made.
fn strip_later_columns<R: Row>(dir: &Path) {
    let path = dir.join(R::FILE);
    let mut reader = csv::Reader::from_path(&path).expect("the table is there");
    let header = reader.headers().expect("it has a header").clone();
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in std::iter::once(header.clone()).chain(reader.records().map(|record| record.expect("it is CSV"))) {
        let first = header
            .iter()
            .zip(&record)
            .filter(|(column, _)| !R::LATER.contains(column));
        writer
            .write_record(first.map(|(_, value)| value))
            .expect("memory takes every write");
    }
    std::fs::write(&path, writer.into_inner().expect("memory takes every write")).expect("the table is written");
}

#[test]
fn a_recording_from_before_there_were_probes_opens_and_goes_on() {
    let dir = folder();
    drop(record(dir.path(), 2, 1));
    strip_later_columns::<Sample>(dir.path());
    strip_later_columns::<Summary>(dir.path());
    std::fs::remove_file(dir.path().join(EXITS)).expect("the file was there");
    let old = Recording::open(dir.path()).expect("an old recording opens");
    assert_eq!(old.exits().expect("there are none"), []);
    assert_eq!(old.summaries, summaries(0));

    let mut recorder = Recorder::resume(dir.path()).expect("it can be continued");
    run_cell(&mut recorder, 1);
    recorder.finish().expect("the recording ends");
    let recording = Recording::open(dir.path()).expect("the recording opens");
    assert_eq!(recording.summaries, [summaries(0), summaries(1)].concat());
    assert_eq!(recording.exits().expect("the exits open"), exits(1));
}

proptest! {
    #[test]
    fn samples_survive_the_file_bit_by_bit(
        t_s in -100.0..1e6_f64, quota in prop::option::of(0.001..1e6_f64), rates in any::<[u32; 2]>(), counts in any::<[u64; 4]>(),
    ) {
        let row = Sample {
            t_s,
            quota_mib_s: quota,
            ring_mib_s: Some(f64::from(rates[0]) / 7.0),
            guest_mib_s: Some(f64::from(rates[1]) / 3.0),
            written_pages: Some(counts[0]),
            exits: Some(counts[1]),
            asked_us: Some(counts[2]),
            throttle_us: Some(counts[3]),
            ..Sample::default()
        };
        let dir = folder();
        let mut recorder = Recorder::create(dir.path(), manifest(1)).expect("the folder is new");
        recorder.append_samples(std::slice::from_ref(&row)).expect("samples are appended");
        recorder.append_summaries(0, &summaries(0)).expect("the cell is finished");
        prop_assert_eq!(Recording::open(dir.path()).expect("the recording opens").samples, [row]);
    }
}
