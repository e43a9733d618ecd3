//! Recordings that were damaged after they were made, or made by another version: each says what is wrong and where.

use std::{error::Error, fs};

use serde_json::Value;

use super::{schema::Row, *};

fn edit(dir: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).expect("the file is there");
    fs::write(&path, change(text)).expect("the file is written");
}

fn edit_manifest(dir: &Path, key: &str, value: Value) {
    edit(dir, MANIFEST, |text| {
        let mut manifest: Value = serde_json::from_str(&text).expect("a manifest is JSON");
        manifest[key] = value;
        manifest.to_string()
    });
}

/// What opening the recording and its log of stalls says.
fn complaint(dir: &Path) -> String {
    let error = Recording::open(dir).and_then(|recording| recording.stalls().map(|_| recording));
    let error = error.map(|_| ()).expect_err("the recording is damaged");
    let text = error.to_string();
    assert!(
        text.contains(dir.to_str().expect("a plain path")),
        "the file is not named: {text}"
    );
    text
}

#[test]
fn another_schema_version_is_refused_before_anything_else() {
    for (version, word) in [(0, "older"), (2, "newer")] {
        let dir = finished_recording();
        edit_manifest(dir.path(), "schema_version", json!(version));
        edit_manifest(dir.path(), "tool_version", json!("9.8.7"));
        // A manifest of another version may have quite other contents.
        edit_manifest(dir.path(), "cells", json!("many"));
        let text = complaint(dir.path());
        assert!(
            text.contains(&format!("schema version {version}, {word} than 1")),
            "{text}"
        );
        assert!(text.contains("dirtyrig 9.8.7"), "{text}");
        assert_eq!(Recorder::resume(dir.path()).expect_err("nor resumed").to_string(), text);
    }
}

#[test]
fn a_folder_that_is_no_recording_is_named_as_such() {
    let dir = folder();
    assert!(complaint(dir.path()).contains("no recording"));
    assert!(complaint(&dir.path().join("nowhere")).contains("no recording"));
}

#[test]
fn a_manifest_that_is_no_manifest_is_named() {
    let dir = finished_recording();
    fs::write(dir.path().join(MANIFEST), "{").expect("the file is written");
    assert!(complaint(dir.path()).contains("manifest.json` can't be read as a manifest"));
}

#[test]
fn a_missing_file_is_named() {
    for file in [SAMPLES, SUMMARY, STALLS] {
        let dir = finished_recording();
        fs::remove_file(dir.path().join(file)).expect("the file is there");
        let text = complaint(dir.path());
        assert!(text.contains(&format!("{file}` is missing")), "{text}");
        assert!(
            Recorder::resume(dir.path()).is_err() || file == SUMMARY,
            "{file}: cells would be lost"
        );
    }
}

#[test]
fn a_summary_that_went_while_the_run_was_down_costs_no_sample() {
    let dir = folder();
    drop(record(dir.path(), 2, 1));
    fs::remove_file(dir.path().join(SUMMARY)).expect("the file is there");
    assert!(matches!(
        Recorder::resume(dir.path()),
        Err(RecordingError::MissingFile { .. })
    ));
    assert!(
        fs::read_to_string(dir.path().join(SAMPLES))
            .expect("the file is there")
            .lines()
            .count()
            > 1
    );
}

#[test]
fn a_file_cut_off_anywhere_is_truncated_and_the_line_is_named() {
    for file in [SAMPLES, SUMMARY, STALLS] {
        let dir = finished_recording();
        let whole = fs::read(dir.path().join(file)).expect("the file is there");
        for len in 0..whole.len() {
            fs::write(dir.path().join(file), &whole[..len]).expect("the file is cut");
            let text = complaint(dir.path());
            let line = table::line_ends(&whole[..len]);
            let cut = text.contains("truncated") && text.contains(&format!("line {} is cut off", line + 1));
            let rows = text.contains("but the manifest promises");
            assert!(cut || rows, "{file} cut to {len}: {text}");
        }
    }
}

#[test]
fn another_unit_is_named_with_the_one_expected() {
    for (ours, theirs) in [
        ("guest_mib_s", "guest_mb_s"),
        ("throttle_us", "throttle_ms"),
        ("ring_mib_s", "ring"),
        ("utilisation_pct", "utilisation"),
    ] {
        let dir = finished_recording();
        edit(dir.path(), SAMPLES, |text| {
            text.replacen(&format!(",{ours},"), &format!(",{theirs},"), 1)
        });
        let text = complaint(dir.path());
        assert!(
            text.contains(&format!("`{theirs}` where `{ours}` is expected")),
            "{text}"
        );
    }
}

#[test]
fn columns_that_are_unknown_missing_or_double_are_named() {
    let header = |change: fn(&str) -> String| {
        let dir = finished_recording();
        edit(dir.path(), SAMPLES, |text| {
            let (first, rest) = text.split_once('\n').expect("there is a header");
            format!("{}\n{rest}", change(first))
        });
        complaint(dir.path())
    };
    assert!(
        header(|first| first.replace("exits,asked_us", "exits,mood")).contains("`mood`, which schema 1 does not know")
    );
    assert!(header(|first| first.replace(",slept_us", "")).contains("`slept_us` 0 times"));
    assert!(header(|first| first.replace("slept_us", "asked_us")).contains("`asked_us` 2 times"));
    // The same quantity in two units.
    assert!(header(|first| first.replace("cell,", "guest_mb_s,")).contains("`guest_mb_s` where `guest_mib_s`"));
}

#[test]
fn a_value_that_is_no_number_is_named_by_line_and_column() {
    let dir = finished_recording();
    edit(dir.path(), SAMPLES, |text| text.replacen("0.3333", "0,3333", 1));
    let text = complaint(dir.path());
    assert!(text.contains("samples.csv`, line 2, 20 values instead of 19"), "{text}");

    let dir = finished_recording();
    edit(dir.path(), SAMPLES, |text| text.replacen("0.3333", "fast", 1));
    let text = complaint(dir.path());
    assert!(text.contains("samples.csv`, line 2, column `guest_mib_s`"), "{text}");

    let dir = finished_recording();
    edit(dir.path(), SUMMARY, |text| text.replacen("floor-bound", "fine", 1));
    let error = Recording::open(dir.path()).expect_err("the recording is damaged");
    let cause = error.source().expect("the parser says more").to_string();
    assert!(error.to_string().contains("summary.csv`, line 2"), "{error}");
    assert!(cause.contains("unknown variant `fine`"), "{cause}");
}

#[test]
fn a_line_of_the_log_that_is_damaged_is_named() {
    for (from, to, expected) in [
        (
            "cell0/vcpu0",
            "cell0.vcpu0",
            "line 7: tag `cell0.vcpu0/stall` is not of the form",
        ),
        (",HISTF", ",!!", "line 7: the histogram is not base64"),
        (",HISTF", ",AAAAA", "line 7: the histogram can't be unpacked"),
        ("Tag=", "Gat=", "line 7: neither a comment nor an interval"),
    ] {
        let dir = finished_recording();
        edit(dir.path(), STALLS, |text| text.replacen(from, to, 1));
        let text = complaint(dir.path());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_recording_from_before_the_later_columns_reads_as_not_measured_and_can_be_continued() {
    let dir = folder();
    drop(record(dir.path(), 2, 1));
    edit(dir.path(), SUMMARY, |text| {
        let mut older = String::new();
        for line in text.lines() {
            // The later columns are the last ones, and empty here.
            let columns = line.split(',').count() - Summary::LATER.len();
            older.push_str(&line.split(',').take(columns).collect::<Vec<_>>().join(","));
            older.push('\n');
        }
        older
    });
    let recording = Recording::open(dir.path()).expect("it reads");
    assert!(!recording.summaries.is_empty());
    assert!(
        recording
            .summaries
            .iter()
            .all(|row| row.harvest_ns_entry.is_none() && row.disturbed.is_empty())
    );
    Recorder::resume(dir.path())
        .expect("it can be continued")
        .finish()
        .expect("it ends");
    let again = Recording::open(dir.path()).expect("it reads");
    assert_eq!(again.summaries, recording.summaries, "now with all columns");
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let dir = folder();
        drop(Recorder::create(dir.path(), manifest(2)).expect("the folder is new"));
        let path = dir.path().join(MANIFEST);
        let mut whole = fs::read(&path).expect("it was written");
        fs::write(&path, &bytes).expect("room");
        prop_assert!(complaint(dir.path()).contains("manifest.json"));
        // One that was damaged somewhere.
        let at = at.index(whole.len());
        whole.splice(at..whole.len().min(at + bytes.len() / 8), bytes.into_iter().take(20));
        fs::write(&path, &whole).expect("room");
        if let Err(error) = Manifest::read(dir.path()) {
            prop_assert!(format!("{error}").contains("manifest.json"), "{}", error);
        }
    }
}
