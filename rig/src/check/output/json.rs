//! For programs. Names and units are a promise, as those of a recording are; `schema_version` is raised when one changes its
//! meaning or goes.

use anyhow::Context;
use serde::Serialize;

use super::Outcome;
use crate::check::{ALPHA, Verdict, cell::Cell, outcome::Subject};

const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Check<'a> {
    schema_version: u32,
    verdict: Verdict,
    alpha: f64,
    baseline: Recording<'a>,
    candidate: Recording<'a>,
    /// All recordings of the baseline, newest first; the first is `baseline`.
    baseline_dirs: &'a [String],
    notes: &'a [String],
    only_in_baseline: &'a [Cell],
    only_in_candidate: &'a [Cell],
    comparisons: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Recording<'a> {
    dir: &'a str,
    git_revision: &'a str,
    started_utc: &'a str,
}

#[derive(Serialize)]
struct Row<'a> {
    cell: &'a Cell,
    metric: &'static str,
    unit: &'static str,
    baseline_repetitions: usize,
    baseline_median: f64,
    candidate_repetitions: usize,
    candidate_median: f64,
    change: f64,
    change_ci_low: f64,
    change_ci_high: f64,
    change_pct: Option<f64>,
    least_change: f64,
    p: f64,
    p_corrected: f64,
    verdict: Verdict,
    repetitions_needed: Option<usize>,
}

pub(super) fn print(outcome: &Outcome) -> anyhow::Result<String> {
    // The worst there is: what a reader who looks at one field wants to know.
    let verdict = outcome
        .comparisons
        .iter()
        .map(|one| one.verdict)
        .min()
        .unwrap_or(Verdict::Same);
    let check = Check {
        schema_version: SCHEMA_VERSION,
        verdict,
        alpha: ALPHA,
        baseline: recording(&outcome.baseline),
        candidate: recording(&outcome.candidate),
        baseline_dirs: &outcome.baseline_dirs,
        notes: &outcome.notes,
        only_in_baseline: &outcome.only_in_baseline,
        only_in_candidate: &outcome.only_in_candidate,
        comparisons: outcome
            .comparisons
            .iter()
            .map(|one| Row {
                cell: &one.cell,
                metric: one.metric.name,
                unit: one.metric.unit,
                baseline_repetitions: one.baseline.values.len(),
                baseline_median: one.baseline.median,
                candidate_repetitions: one.candidate.values.len(),
                candidate_median: one.candidate.median,
                change: one.change,
                change_ci_low: one.interval.low,
                change_ci_high: one.interval.high,
                change_pct: one.pct(one.change),
                least_change: one.least,
                p: one.p,
                p_corrected: one.p_corrected,
                verdict: one.verdict,
                repetitions_needed: one.needed,
            })
            .collect(),
    };
    serde_json::to_string_pretty(&check).context("can't put the outcome into JSON")
}

fn recording(subject: &Subject) -> Recording<'_> {
    Recording {
        dir: &subject.dir,
        git_revision: &subject.revision,
        started_utc: &subject.started_utc,
    }
}
