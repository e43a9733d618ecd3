//! Whether two recordings can be compared: what of their machines and scenarios differs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::recording::{Manifest, Recording};

/// Facts of a machine that figures depend on, as paths into the manifest. What changes from one minute to the next, and
/// dirtyrig itself, is not among them: a new dirtyrig is what a check is for.
const FACTS: [&str; 14] = [
    "cpu/vendor",
    "cpu/model_name",
    "cpu/family",
    "cpu/model",
    "cpu/stepping",
    "cpu/microcode",
    "cpu/hypervisor",
    "cpu/usable",
    "cpu/smt",
    "cpu/governors",
    "kernel/release",
    "kernel/timer_slack_ns",
    "kvm/module",
    "memory/thp_enabled",
];

/// Settings that may differ: the choice of random numbers, and how often a cell was measured.
const FREE: [&str; 2] = ["seed", "repetitions"];

/// Settings that tell cells apart: see [`Cell`](super::cell::Cell).
const CELL: [&str; 9] = [
    "vmm", "limiter", "ring", "period", "quota", "vm-quota", "guest", "vcpus", "memory",
];

/// Settings that came later, and what was so before there was a choice.
const LATER: [(&str, &str); 2] = [("vmm", "rig"), ("probes", "off")];

/// What differs between the machines and the scenarios, a sentence each; nothing where they may be compared.
pub fn differences(baseline: &Recording, candidate: &Recording) -> Vec<String> {
    let (old, new) = (&baseline.manifest, &candidate.manifest);
    let mut found = machine(&old.machine, &new.machine);
    found.extend(scenario(old, new));
    found.extend(vmm(baseline, candidate));
    found
}

fn machine(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let fact = |facts: &Map<String, Value>, path: &str| {
        let (group, name) = path.split_once('/').expect("the paths have two parts");
        facts.get(group).and_then(|group| group.get(name)).cloned()
    };
    let mut found: Vec<String> = FACTS
        .iter()
        // What one of them does not say can't be compared.
        .filter_map(|path| Some((path, fact(old, path)?, fact(new, path)?)))
        .filter(|(_, old, new)| old != new)
        .map(|(path, old, new)| differs("machine", &path.replace('/', "."), &text(&old), &text(&new)))
        .collect();
    let parameters = |facts| {
        fact(facts, "kvm/parameters")
            .and_then(|value| value.as_object().cloned())
            .unwrap_or_default()
    };
    let (old, new) = (parameters(old), parameters(new));
    found.extend(old.iter().filter_map(|(name, value)| {
        let other = new.get(name).filter(|other| *other != value)?;
        Some(differs(
            "machine",
            &format!("module parameter {name}"),
            &text(value),
            &text(other),
        ))
    }));
    found
}

/// Settings that have other values in one than in the other, of the cells that both have: what tells cells apart decides
/// which of them are compared, and is no reason to refuse those. A recording of a sweep has a list of cells with settings
/// each, that of a run just one.
fn scenario(old: &Manifest, new: &Manifest) -> Vec<String> {
    let (old, new) = (settings(&old.scenario), settings(&new.scenario));
    let keys = |settings: &[Settings]| settings.iter().map(key).collect::<BTreeSet<_>>();
    let common: BTreeSet<Settings> = keys(&old).intersection(&keys(&new)).cloned().collect();
    let of_common = |settings: Vec<Settings>| values(settings.into_iter().filter(|one| common.contains(&key(one))));
    let (old, new) = (of_common(old), of_common(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let none = BTreeSet::new();
    names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
            (old != new).then(|| differs("scenario", name, &listed(old), &listed(new)))
        })
        .collect()
}

/// The settings of one cell, as text.
type Settings = BTreeMap<String, String>;

/// The settings of each cell, with what was so before there was a choice.
fn settings(scenario: &Value) -> Vec<Settings> {
    let cells: Vec<&Value> = match scenario.get("cells").and_then(Value::as_array) {
        Some(cells) => cells.iter().filter_map(|cell| cell.get("settings")).collect(),
        None => vec![scenario],
    };
    let of = |settings: &Map<String, Value>| {
        let mut named: Settings = settings
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        for (name, before) in LATER {
            named.entry(name.to_owned()).or_insert_with(|| before.to_owned());
        }
        named
    };
    cells.into_iter().filter_map(Value::as_object).map(of).collect()
}

/// What tells a cell from others.
fn key(settings: &Settings) -> Settings {
    let is_key = |(name, _): &(&String, &String)| CELL.contains(&name.as_str());
    settings
        .iter()
        .filter(is_key)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn values(settings: impl IntoIterator<Item = Settings>) -> BTreeMap<String, BTreeSet<String>> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in settings.into_iter().flatten() {
        if !FREE.contains(&name.as_str()) {
            values.entry(name).or_default().insert(value);
        }
    }
    values
}

/// Other VMMs, where there is none that both have.
fn vmm(baseline: &Recording, candidate: &Recording) -> Option<String> {
    let names =
        |recording: &Recording| -> BTreeSet<String> { recording.summaries.iter().map(|row| row.vmm.clone()).collect() };
    let (old, new) = (names(baseline), names(candidate));
    old.is_disjoint(&new)
        .then(|| differs("scenario", "VMM", &listed(&old), &listed(&new)))
}

fn differs(what: &str, name: &str, old: &str, new: &str) -> String {
    format!("{what}: {name} is {old} in the baseline and {new} in the candidate")
}

fn listed(values: &BTreeSet<String>) -> String {
    if values.is_empty() {
        "not set".to_owned()
    } else {
        values.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// A value without the quotes and brackets of JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if !values.is_empty() => values.iter().map(text).collect::<Vec<_>>().join("+"),
        Value::Array(_) | Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_setting_from_before_there_was_a_choice_is_what_it_was() {
        let cells = |cell: Value| values(settings(&json!({ "cells": [{ "settings": cell }] })));
        let old = cells(json!({ "quota": ["25"], "seed": 1 }));
        assert_eq!(
            old,
            cells(json!({ "quota": ["25"], "seed": 2, "vmm": ["rig"], "probes": "off" }))
        );
        assert_ne!(old, cells(json!({ "quota": ["25"], "vmm": ["qemu"], "probes": "off" })));
        assert_ne!(old, cells(json!({ "quota": ["25"], "thp": true })));
        assert_eq!(old, values(settings(&json!({ "quota": ["25"] }))), "a run has one cell");
    }

    #[test]
    fn each_fact_and_parameter_that_differs_is_named_and_what_is_unknown_is_not() {
        let facts = |usable: u32, pml: &str| {
            let facts = json!({
                "cpu": { "usable": usable, "smt": false },
                "kvm": { "parameters": { "kvm_intel.pml": pml } },
                "noise": { "samples": usable },
            });
            facts.as_object().expect("an object").clone()
        };
        assert_eq!(
            machine(&facts(2, "Y"), &facts(4, "N")),
            [
                "machine: cpu.usable is 2 in the baseline and 4 in the candidate",
                "machine: module parameter kvm_intel.pml is Y in the baseline and N in the candidate"
            ]
        );
        assert!(machine(&facts(2, "Y"), &Map::new()).is_empty());
    }
}
