//! For CI servers: a suite a cell, a case a metric. A regression is a failure, what can't be told is skipped.

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Comparison, Outcome, change, figure, interval, verdict};
use crate::check::Verdict;

pub(super) fn print(outcome: &Outcome) -> anyhow::Result<String> {
    let mut report = Report::new("dirtyrig check");
    for cell in outcome.comparisons.chunk_by(|one, next| one.cell == next.cell) {
        let mut suite = TestSuite::new(cell[0].cell.to_string());
        suite.add_test_cases(cell.iter().map(case));
        report.add_test_suite(suite);
    }
    report.to_string().context("can't put the outcome into XML")
}

fn case(one: &Comparison) -> TestCase {
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
    }
    let mut case = TestCase::new(one.metric.name, status);
    if passed {
        case.set_system_out(said);
    }
    case
}
