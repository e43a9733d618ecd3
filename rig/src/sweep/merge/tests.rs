//! Shares of a small sweep, written without a machine, merged; and everything that must not be merged.

use std::{fs, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    model::{Shard, Stall},
    recording::{SAMPLES, State},
};

fn plan_of(text: &str, seed: u64) -> Plan {
    Plan::matrix(&toml::from_str(text).expect("valid settings"), seed).expect("valid cells")
}

fn plan() -> Plan {
    plan_of("ring = [1024, 4096, 65536]\nquota = [25, 500]", 7)
}

fn machine(name: &str, noise_us: u64) -> Map<String, Value> {
    let facts = json!({
        "cpu": { "model_name": name, "online": 2 },
        "kernel": { "release": "6.18" },
        "noise": { "p99_us": noise_us },
    });
    facts.as_object().expect("an object").clone()
}

/// How one recording is made.
struct Part<'a> {
    plan: &'a Plan,
    shard: Option<&'a str>,
    cells: &'a [u32],
    machine: Map<String, Value>,
}

impl Part<'_> {
    /// Writes it, with `finished` of its cells, in the order of the plan.
    fn write(&self, dir: &Path, finished: usize) -> Recording {
        let manifest = Manifest {
            shard: self.shard.map(|text| text.parse::<Shard>().expect("a share")),
            ..Manifest::new(
                self.plan.seed,
                self.cells.iter().copied(),
                self.machine.clone(),
                serde_json::to_value(self.plan).expect("a plan is JSON"),
            )
        };
        let mut recorder = Recorder::create(dir, manifest).expect("a new folder");
        let cells = self.plan.cells.iter().map(|cell| cell.cell);
        for cell in cells.filter(|cell| self.cells.contains(cell)).take(finished) {
            recorder.append_samples(&samples(cell)).expect("written");
            let second = Duration::from_secs(1);
            recorder
                .append_stalls(cell, &(second..2 * second), &stalls(cell))
                .expect("written");
            recorder.append_exits(&[exits(cell)]).expect("written");
            recorder.append_summaries(cell, &[summary(cell)]).expect("written");
        }
        recorder.finish().expect("written");
        Recording::open(dir).expect("readable")
    }
}

fn samples(cell: u32) -> Vec<Sample> {
    (0..3)
        .map(|step| Sample {
            cell,
            t_s: f64::from(step),
            ring_mib_s: Some(f64::from(cell)),
            ..Sample::default()
        })
        .collect()
}

fn summary(cell: u32) -> Summary {
    Summary {
        cell,
        vcpus: 1,
        limiter: "qemu-7.2".to_owned(),
        guest_mib_s: Some(f64::from(cell) / 3.0),
        ..Summary::default()
    }
}

fn exits(cell: u32) -> ExitRow {
    ExitRow {
        cell,
        reason: "KVM_EXIT_DIRTY_RING_FULL".to_owned(),
        count: Some(u64::from(cell)),
        ..ExitRow::default()
    }
}

fn stalls(cell: u32) -> Vec<Stall> {
    let length = Duration::from_micros(100 + u64::from(cell));
    vec![Stall {
        vcpu: 0,
        at: Duration::ZERO,
        length,
        asked: length,
        slept: length,
    }]
}

/// Two shares of the plan on the machines named, the second with `finished` of its cells.
fn shares(root: &Path, machines: [&str; 2], finished: usize) -> [Recording; 2] {
    let plan = plan();
    let write = |text: &str, name: &str, finished| {
        let cells: Vec<u32> = text
            .parse::<Shard>()
            .unwrap()
            .cells(&plan)
            .unwrap()
            .into_iter()
            .collect();
        let part = Part {
            plan: &plan,
            shard: Some(text),
            cells: &cells,
            machine: machine(name, 3 + u64::from(text.starts_with('2'))),
        };
        part.write(&root.join(text.replace('/', "-")), finished)
    };
    [write("1/2", machines[0], 9), write("2/2", machines[1], finished)]
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn shares_of_two_machines_become_the_sweep() {
    let root = folder();
    let parts = shares(root.path(), ["A", "B"], 9);
    let merged = merge(&parts, &root.path().join("all")).expect("shares merge");
    assert_eq!(merged.manifest.state, State::Complete);
    assert_eq!(merged.gaps(), None);
    let expected: Vec<ExitRow> = plan().cells.iter().map(|cell| exits(cell.cell)).collect();
    assert_eq!(merged.exits().expect("readable"), expected);
    let order: Vec<u32> = merged.summaries.iter().map(|row| row.cell).collect();
    assert_eq!(order, plan().cells.iter().map(|cell| cell.cell).collect::<Vec<_>>());
    for row in &merged.summaries {
        assert_eq!(*row, summary(row.cell));
        let of_cell: Vec<Sample> = merged
            .samples
            .iter()
            .filter(|sample| sample.cell == row.cell)
            .cloned()
            .collect();
        assert_eq!(of_cell, samples(row.cell));
    }
    let mut intervals: Vec<_> = parts.iter().flat_map(|part| part.stalls().unwrap()).collect();
    let mut found = merged.stalls().expect("the log is whole");
    intervals.sort_by_key(|interval| (interval.cell, interval.kind));
    found.sort_by_key(|interval| (interval.cell, interval.kind));
    assert_eq!(found, intervals);

    let manifest = &merged.manifest;
    assert_eq!(manifest.machine["machines"], 2);
    assert_eq!(manifest.machine["kernel"]["release"], "6.18");
    assert!(
        manifest.machine["cpu"].get("model_name").is_none(),
        "A and B are not the same"
    );
    assert_eq!(manifest.merged_from.len(), 2);
    assert_eq!(manifest.merged_from[1].machine["cpu"]["model_name"], "B");
    assert_eq!(manifest.merged_from[1].cells, parts[1].finished());
}

#[test]
fn what_no_share_has_finished_is_missing() {
    let root = folder();
    let parts = shares(root.path(), ["A", "A"], 1);
    let merged = merge(&parts, &root.path().join("all")).expect("shares merge");
    assert_eq!(merged.manifest.state, State::Interrupted);
    assert_eq!(merged.missing(), parts[1].missing());
    assert!(merged.manifest.machine.get("machines").is_none());
    assert_eq!(
        merged.manifest.machine, parts[0].manifest.machine,
        "one machine, measured twice"
    );
}

#[test]
fn three_shares_merge_two_at_a_time() {
    let root = folder();
    let plan = plan();
    let part = |index: usize, cells: &[u32]| {
        let shard = format!("{index}/3");
        let part = Part {
            plan: &plan,
            shard: Some(&shard),
            cells,
            machine: machine(&shard, 1),
        };
        part.write(&root.path().join(index.to_string()), 9)
    };
    let [a, b, c] = [part(1, &[0, 1]), part(2, &[2, 3]), part(3, &[4, 5])];
    let ab = merge(&[a, b], &root.path().join("ab")).expect("merges");
    let all = merge(&[ab, c], &root.path().join("all")).expect("merges");
    assert_eq!(all.manifest.state, State::Complete);
    assert_eq!(
        (all.manifest.merged_from.len(), &all.manifest.machine["machines"]),
        (3, &json!(3))
    );
}

/// What merging says of these, and that it wrote nothing.
fn refused(parts: &[Recording]) -> String {
    let root = folder();
    let out = root.path().join("out");
    let error = merge(parts, &out).expect_err("must not merge");
    assert!(!out.exists(), "something was written");
    error.to_string()
}

#[test]
fn a_cell_that_is_finished_twice_is_refused() {
    let root = folder();
    let [a, b] = shares(root.path(), ["A", "A"], 9);
    let text = refused(&[a.clone(), b, a]);
    assert!(
        text.contains("1-2` and `") && text.contains("have both finished cells"),
        "{text}"
    );
    assert!(text.contains("--shard"), "{text}");
}

#[test]
fn other_plans_are_refused_with_what_differs() {
    let root = folder();
    let part = |name: &str, plan: &Plan, cells: &[u32]| {
        let part = Part {
            plan,
            shard: Some("1/2"),
            cells,
            machine: machine("A", 1),
        };
        part.write(&root.path().join(name), 9)
    };
    let ours = part("ours", &plan(), &[0, 1]);
    for (name, text, seed, expected) in [
        (
            "seed",
            "ring = [1024, 4096, 65536]\nquota = [25, 500]",
            8,
            "seed 7 and seed 8",
        ),
        ("fewer", "ring = [1024, 4096]\nquota = [25, 500]", 7, "6 and 4 cells"),
        (
            "other",
            "ring = [1024, 4096, 32768]\nquota = [25, 500]",
            7,
            "ring 32768",
        ),
    ] {
        let theirs = part(name, &plan_of(text, seed), &[2, 3]);
        let text = refused(&[ours.clone(), theirs]);
        assert!(text.contains(expected) && text.contains(name), "{text}");
    }
}

#[test]
fn other_builds_are_refused() {
    let root = folder();
    let [a, mut b] = shares(root.path(), ["A", "A"], 9);
    b.manifest.git_revision = "cafe".to_owned();
    assert!(refused(&[a, b]).contains("(cafe)"));
}

#[test]
fn two_machines_are_refused_unless_they_are_shares() {
    let root = folder();
    let plan = plan();
    let part = |name: &str, machine_name: &str, shard, cells: &[u32], noise| {
        let part = Part {
            plan: &plan,
            shard,
            cells,
            machine: machine(machine_name, noise),
        };
        part.write(&root.path().join(name), 9)
    };
    let a = part("a", "A", Some("1/2"), &[0, 1, 2], 1);
    let b = part("b", "B", None, &[3, 4], 1);
    let text = refused(&[a.clone(), b]);
    assert!(
        text.contains("cpu model_name: \"A\" and \"B\"") && text.contains("`sweep --shard`"),
        "{text}"
    );
    let same = part("same", "A", None, &[3, 4], 99);
    assert!(
        merge(&[a, same], &root.path().join("all")).is_ok(),
        "noise is measured anew and makes no other machine"
    );
}

#[test]
fn a_single_recording_and_one_of_no_sweep_are_refused() {
    let root = folder();
    let [a, mut b] = shares(root.path(), ["A", "A"], 9);
    assert!(refused(std::slice::from_ref(&a)).contains("two or more"));
    b.manifest.scenario = json!({ "ring": [4096] });
    assert!(refused(&[a, b]).contains("no recording of a sweep"));
}

#[test]
fn damage_is_found_before_anything_is_written() {
    let root = folder();
    let [a, b] = shares(root.path(), ["A", "A"], 9);
    let log = b.dir.join(crate::recording::STALLS);
    let text = fs::read_to_string(&log).expect("readable");
    fs::write(&log, &text[..text.len() - 5]).expect("cut");
    assert!(refused(&[a.clone(), b.clone()]).contains("truncated"));
    fs::remove_file(&log).expect("removed");
    assert!(refused(&[a, b]).contains("stalls.hlog` is missing"));
}

#[test]
fn results_are_never_overwritten() {
    let root = folder();
    let parts = shares(root.path(), ["A", "A"], 9);
    let before = fs::read(parts[0].dir.join(SAMPLES)).expect("readable");
    let error = merge(&parts, &parts[0].dir).expect_err("not empty").to_string();
    assert!(error.contains("never overwritten"), "{error}");
    assert_eq!(fs::read(parts[0].dir.join(SAMPLES)).expect("readable"), before);
}
