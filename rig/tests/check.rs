//! `dirtyrig check` from outside: exit codes, refusals, baselines. Recordings are made here; nothing is run.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use dirtyrig_rig::recording::{Manifest, Recorder, schema::Sample, schema::Summary};
use serde_json::{Map, Value, json};

fn machine(cpus: u32) -> Map<String, Value> {
    let facts = json!({ "cpu": { "usable": cpus, "model_name": "A CPU" }, "kvm": { "module": "kvm_amd" } });
    facts.as_object().expect("an object").clone()
}

/// A recording with `count` repetitions of one cell, whose stalls lie about `level`.
fn record(dir: &Path, machine: Map<String, Value>, quota: f64, count: u32, level: f64) {
    let cells: Vec<Value> = (0..count)
        .map(|cell| json!({ "cell": cell, "repetition": cell, "settings": { "quota": [quota.to_string()], "seed": cell } }))
        .collect();
    let manifest = Manifest::new(1, 0..count, machine, json!({ "cells": cells }));
    let mut recorder = Recorder::create(dir, manifest).expect("a new folder");
    for cell in 0..count {
        let sample = Sample {
            cell,
            ..Sample::default()
        };
        recorder.append_samples(&[sample]).expect("room");
        let share = 1.0 + 0.001 * f64::from(cell);
        let row = Summary {
            cell,
            repetition: cell,
            vmm: "rig".to_owned(),
            limiter: "budget".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 1000,
            vcpus: 1,
            quota_mib_s: Some(quota),
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
        &["scenario: quota is 100 in the baseline and 50"],
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
