//! For CI servers: a suite a cell, a case a metric. A regression is a failure, what can't be told is skipped.
//!
//! GitLab shows cases that have a `classname`; Jenkins makes a package of what stands before the last dot of it. A suite's
//! `time` is how long the candidate was measured in the cell, and its cases share it. `file` is where the figures are.

use std::time::Duration;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Comparison, Outcome, change, figure, interval, verdict};
use crate::{check::Verdict, recording::SUMMARY};

pub(super) fn print(outcome: &Outcome) -> anyhow::Result<String> {
    let file = format!("{}/{SUMMARY}", outcome.candidate.dir);
    let mut report = Report::new("dirtyrig check");
    let mut total = Duration::ZERO;
    for cell in outcome.comparisons.chunk_by(|one, next| one.cell == next.cell) {
        let mut suite = TestSuite::new(cell[0].cell.to_string());
        let measured = Duration::try_from_secs_f64(cell[0].measured_s).unwrap_or_default();
        let share = measured / cell.len() as u32;
        suite.set_time(measured);
        total += measured;
        suite.add_test_cases(cell.iter().map(|one| case(one, share, &file)));
        report.add_test_suite(suite);
    }
    report.set_time(total);
    report.to_string().context("can't put the outcome into XML")
}

fn case(one: &Comparison, time: Duration, file: &str) -> TestCase {
    let said = format!(
        "{}: {} {} in the baseline, {} in the candidate, {} ({}), p {:.4}",
        verdict(one),
        figure(one.baseline.median),
        one.metric.unit,
        figure(one.candidate.median),
        change(one, one.change),
        interval(one),
        one.p_corrected
    );
    let mut status = match one.verdict {
        Verdict::Regressed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::CantTell => TestCaseStatus::skipped(),
        Verdict::Improved | Verdict::Same => TestCaseStatus::success(),
    };
    let passed = matches!(one.verdict, Verdict::Improved | Verdict::Same);
    if !passed {
        status.set_message(said.clone());
        status.set_type(one.verdict.name());
        // Some servers show the text of a failure, others its message.
        status.set_description(said.clone());
    }
    let mut case = TestCase::new(one.metric.name, status);
    case.set_classname(format!("dirtyrig.{}", one.cell.to_string().replace('.', "_")));
    case.set_time(time);
    case.extra.insert("file".into(), file.into());
    if passed {
        case.set_system_out(said);
    }
    case
}
