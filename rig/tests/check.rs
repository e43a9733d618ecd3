//! `dirtyrig check` from outside: exit codes, refusals, baselines. Recordings are made here; nothing is run.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use dirtyrig_rig::{
    model::{Sample, Summary},
    recording::{Manifest, Recorder},
};
use serde_json::{Map, Value, json};

fn machine(cpus: u32) -> Map<String, Value> {
    let facts = json!({ "cpu": { "usable": cpus, "model_name": "A CPU" }, "kvm": { "module": "kvm_amd" } });
    facts.as_object().expect("an object").clone()
}

/// A recording with `count` repetitions of one cell, whose stalls lie about `level`.
fn record(dir: &Path, machine: Map<String, Value>, quota: f64, count: u32, level: f64) {
    record_quotas(dir, machine, &[quota], count, level);
}

/// The same of a cell a quota.
fn record_quotas(dir: &Path, machine: Map<String, Value>, quotas: &[f64], count: u32, level: f64) {
    let numbers = 0..count * quotas.len() as u32;
    let quota = |cell: u32| quotas[cell as usize % quotas.len()];
    let cells: Vec<Value> = numbers
        .clone()
        .map(|cell| json!({ "cell": cell, "settings": { "quota": [quota(cell).to_string()], "seed": cell } }))
        .collect();
    let manifest = Manifest::new(1, numbers.clone(), machine, json!({ "cells": cells }));
    let mut recorder = Recorder::create(dir, manifest).expect("a new folder");
    for cell in numbers {
        let repetition = cell / quotas.len() as u32;
        let sample = Sample {
            cell,
            ..Sample::default()
        };
        recorder.append_samples(&[sample]).expect("room");
        let share = 1.0 + 0.001 * f64::from(repetition);
        let row = Summary {
            cell,
            repetition,
            vmm: "rig".to_owned(),
            limiter: "budget".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 1000,
            vcpus: 1,
            quota_mib_s: Some(quota(cell)),
            pauses: Some(100),
            stall_p50_us: Some(level * share),
            stall_p99_us: Some(2.0 * level * share),
            stall_p999_us: Some(3.0 * level * share),
            unlimited_mib_s: Some(1600.0 * share),
            ..Summary::default()
        };
        recorder.append_summaries(cell, &[row]).expect("room");
    }
    recorder.finish().expect("room");
}

/// Sets when a recording was begun.
fn begun(dir: &Path, started_utc: &str) {
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("the file")).expect("JSON");
    manifest["started_utc"] = started_utc.into();
    fs::write(path, manifest.to_string()).expect("the file");
}

fn check(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .arg("check")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs it; the code must be `code`, and stderr contain each of `expected`.
fn ends(dir: &Path, arguments: &[&str], code: i32, expected: &[&str]) -> String {
    let output = check(dir, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for words in expected {
        assert!(
            said.contains(words),
            "{arguments:?} should say `{words}`, but says: {said}"
        );
    }
    assert!(code != 2 || output.stdout.is_empty(), "an error prints no data");
    String::from_utf8(output.stdout).expect("text")
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    record(&dir.path().join("old"), machine(2), 100.0, 10, 1000.0);
    dir
}

#[test]
fn the_exit_code_says_whether_anything_got_worse() {
    let dir = folder();
    record(&dir.path().join("same"), machine(2), 100.0, 10, 1001.0);
    record(&dir.path().join("slow"), machine(2), 100.0, 10, 1300.0);
    ends(dir.path(), &["same", "--baseline", "old"], 0, &["0 regressed"]);
    let table = ends(dir.path(), &["slow", "--baseline", "old"], 1, &["3 regressed"]);
    assert!(table.contains("+30.0 %") && table.contains("regressed"), "{table}");
    ends(dir.path(), &["old", "--baseline", "slow"], 0, &["3 improved"]);
    let json = ends(dir.path(), &["slow", "--baseline", "old", "--format", "json"], 1, &[]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["verdict"], "regressed");
}

#[test]
fn a_baseline_is_kept_under_its_name_and_never_overwritten() {
    let dir = folder();
    record(&dir.path().join("slow"), machine(2), 100.0, 10, 1300.0);
    ends(
        dir.path(),
        &["slow", "--baseline", "main"],
        2,
        &["no baseline `main`", "--save-baseline"],
    );
    ends(
        dir.path(),
        &["old", "--save-baseline", "main"],
        0,
        &["results/baselines/main"],
    );
    ends(dir.path(), &["slow", "--baseline", "main"], 1, &[]);
    ends(
        dir.path(),
        &["slow", "--save-baseline", "main"],
        2,
        &["`main` already", "none is ever overwritten"],
    );
    ends(dir.path(), &["old", "--baseline", "main"], 0, &[]);
    ends(
        dir.path(),
        &["old", "--save-baseline", "../x"],
        2,
        &["`../x` is no name"],
    );
    ends(
        dir.path(),
        &["slow", "--baseline", "mian"],
        2,
        &["no baseline `mian`", "one of main"],
    );
    let left = fs::read_dir(dir.path().join("results/baselines"))
        .expect("the store")
        .count();
    assert_eq!(left, 1, "nothing half-copied is left");
}

#[test]
fn what_differs_is_refused_with_the_reason_unless_forced() {
    let dir = folder();
    record(&dir.path().join("bigger"), machine(4), 100.0, 10, 1000.0);
    let said = [
        "machine: cpu.usable is 2 in the baseline and 4 in the candidate",
        "--force",
    ];
    ends(dir.path(), &["bigger", "--baseline", "old"], 2, &said);
    ends(
        dir.path(),
        &["bigger", "--baseline", "old", "--force"],
        0,
        &["compared all the same: machine: cpu.usable"],
    );
    record(&dir.path().join("other"), machine(2), 50.0, 10, 1000.0);
    ends(
        dir.path(),
        &["other", "--baseline", "old"],
        2,
        &["no cell in common", "quota 100", "quota 50"],
    );
    ends(
        dir.path(),
        &["other", "--baseline", "old", "--force"],
        2,
        &["no cell in common", "quota 100", "quota 50"],
    );
}

#[test]
fn too_few_repetitions_are_an_error_and_say_how_many_it_takes() {
    let dir = folder();
    record(&dir.path().join("few"), machine(2), 100.0, 2, 1000.0);
    let said = [
        "nothing can be told",
        "10 repetitions in the baseline and 2 in the candidate",
        "--repetitions 7",
    ];
    ends(dir.path(), &["few", "--baseline", "old"], 2, &said);
}

#[test]
fn damaged_recordings_are_named() {
    let dir = folder();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let path = dir.path().join(name);
        record(&path, machine(2), 100.0, 10, 1000.0);
        damage(&path);
    };
    let edit = |path: &Path, from: &str, to: &str| {
        let text = fs::read_to_string(path).expect("the file").replacen(from, to, 1);
        fs::write(path, text).expect("the file");
    };
    damaged("older", &|path| {
        edit(
            &path.join("manifest.json"),
            "\"schema_version\": 1",
            "\"schema_version\": 0",
        );
    });
    damaged("cut", &|path| {
        let file = path.join("summary.csv");
        let text = fs::read(&file).expect("the file");
        fs::write(&file, &text[..text.len() - 20]).expect("the file");
    });
    damaged("gone", &|path| {
        fs::remove_file(path.join("summary.csv")).expect("the file");
    });
    damaged("units", &|path| {
        edit(&path.join("summary.csv"), ",stall_p99_us,", ",stall_p99_ms,");
    });
    for (name, expected) in [
        ("older", "schema version 0, older than 1"),
        ("cut", "truncated"),
        ("gone", "summary.csv` is missing"),
        ("units", "`stall_p99_ms` where `stall_p99_us` is expected"),
        ("nowhere", "no recording"),
    ] {
        ends(dir.path(), &[name, "--baseline", "old"], 2, &[expected]);
        if name != "nowhere" {
            ends(dir.path(), &["old", "--baseline", name], 2, &[expected]);
        }
    }
    record(&dir.path().join("empty"), machine(2), 100.0, 0, 1000.0);
    ends(
        dir.path(),
        &["empty", "--baseline", "old"],
        2,
        &["has no finished cell"],
    );
    ends(dir.path(), &["old"], 2, &["--baseline <BASE>"]);
}

#[test]
fn cells_that_both_have_are_compared_and_the_others_listed() {
    let dir = folder();
    record_quotas(&dir.path().join("wide"), machine(2), &[100.0, 50.0, 25.0], 10, 1300.0);
    let said = [
        "in the candidate only, and not compared: budget ring 4096 1 s quota 25; budget ring 4096 1 s quota 50",
        "3 regressed",
    ];
    ends(dir.path(), &["wide", "--baseline", "old"], 1, &said);
    let json = ends(dir.path(), &["old", "--baseline", "wide", "--format", "json"], 0, &[]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let quotas: Vec<_> = json["only_in_baseline"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|cell| &cell["quota_mib_s"])
        .collect();
    assert_eq!(quotas, [&json!(25.0), &json!(50.0)]);
    assert_eq!(json["only_in_candidate"], json!([]));
    // A setting that tells no cells apart is refused as ever, in the cells that both have.
    let path = dir.path().join("wide/manifest.json");
    let other = fs::read_to_string(&path)
        .expect("the file")
        .replace("\"seed\":", "\"duration\": \"9s\", \"seed\":");
    fs::write(path, other).expect("the file");
    ends(
        dir.path(),
        &["wide", "--baseline", "old"],
        2,
        &["scenario: duration is not set in the baseline and 9s in the candidate"],
    );
}

#[test]
fn a_rolling_baseline_is_the_last_recordings_before_the_candidate() {
    let dir = folder();
    let nightly = dir.path().join("nightly");
    // One bad night among good ones, and one that comes after the candidate.
    for (day, level) in [(1, 5000.0), (2, 1000.0), (3, 1300.0), (4, 1000.0), (6, 5000.0)] {
        let path = nightly.join(format!("day{day}"));
        record(&path, machine(2), 100.0, 10, level);
        begun(&path, &format!("2026-01-0{day}T00:00:00Z"));
    }
    let candidate = nightly.join("day5");
    record(&candidate, machine(2), 100.0, 10, 1001.0);
    begun(&candidate, "2026-01-05T00:00:00Z");
    let check = [
        "nightly/day5",
        "--baseline",
        "nightly",
        "--last",
        "3",
        "--format",
        "json",
    ];
    let json = ends(dir.path(), &check, 0, &["0 regressed"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["baseline_dirs"],
        json!(["nightly/day4", "nightly/day3", "nightly/day2"])
    );
    assert_eq!(json["comparisons"][0]["baseline_repetitions"], 30);
    let median = json["comparisons"][0]["baseline_median"].as_f64().expect("a number");
    assert!((1000.0..1010.0).contains(&median), "{median}");

    let said = ["the baseline has 4 recordings, not 9"];
    ends(
        dir.path(),
        &["nightly/day5", "--baseline", "nightly", "--last", "9"],
        0,
        &said,
    );
    record(&nightly.join("bigger"), machine(4), 100.0, 10, 1000.0);
    begun(&nightly.join("bigger"), "2026-01-04T12:00:00Z");
    let said = ["not in the baseline: `nightly/bigger` is another experiment: machine: cpu.usable is 4"];
    ends(
        dir.path(),
        &["nightly/day5", "--baseline", "nightly", "--last", "3"],
        0,
        &said,
    );
    ends(
        dir.path(),
        &["nightly/day1", "--baseline", "nightly", "--last", "3"],
        2,
        &[
            "none of the recordings in `nightly` can be a baseline of `nightly/day1`",
            "no other one was begun before it",
        ],
    );
    ends(
        dir.path(),
        &["old", "--baseline", "nowhere", "--last", "3"],
        2,
        &["`nowhere` can't be read"],
    );
    ends(
        dir.path(),
        &["old", "--baseline", "nightly", "--last", "0"],
        2,
        &["--last <N>"],
    );
    ends(
        dir.path(),
        &["old", "--baseline", "old", "--max-bytes", "100"],
        2,
        &["`--max-bytes 100` is for `--format md`"],
    );
}
