//! Golden files: `DIRTYRIG_BLESS=1` writes them anew.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    check::{compare, outcome::Subject},
    model::Summary,
};

/// Ten repetitions of two cells: the stalls of the first at `level`.
fn rows(level: f64) -> Vec<Summary> {
    (0..20)
        .map(|cell| {
            let share = 1.0 + 0.002 * f64::from(cell % 10);
            let large = cell >= 10;
            Summary {
                cell,
                vmm: "rig".to_owned(),
                limiter: "budget".to_owned(),
                guest: Some("sequential".to_owned()),
                ring_entries: Some(if large { 65536 } else { 4096 }),
                period_ms: 1000,
                vcpus: 1,
                quota_mib_s: Some(100.0),
                pauses: Some(100),
                measured_s: 20.0,
                stall_p50_us: Some(4000.0 * share),
                stall_p99_us: Some(if large { 5000.0 } else { level } * share),
                stall_p999_us: Some(5000.0 * (1.0 + f64::from(cell * 7 % 10) / 5.0)),
                unlimited_mib_s: Some(1600.0 * share),
                settle_s: Some(1.0),
                overshoot_pct: Some(0.0),
                error_pct: Some(-0.5 * share),
                ..Summary::default()
            }
        })
        .collect()
}

fn outcome() -> Outcome {
    let subject = |dir: &str| Subject {
        dir: dir.to_owned(),
        revision: "0123abc".to_owned(),
        started_utc: "2026-01-02T03:04:05Z".to_owned(),
    };
    Outcome {
        baseline: subject("results/baselines/main"),
        candidate: subject("results/new"),
        baseline_dirs: vec!["results/baselines/main".to_owned()],
        notes: vec![
            "compared all the same: machine: cpu.usable is 2 in the baseline and 4 in the candidate".to_owned(),
        ],
        only_in_baseline: Vec::new(),
        only_in_candidate: Vec::new(),
        comparisons: compare(&rows(5000.0), &rows(6500.0)),
    }
}

fn golden(format: Format, file: &str) {
    let said = print(&outcome(), format, None).expect("it can be printed");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    if std::env::var_os("DIRTYRIG_BLESS").is_some() {
        fs::write(&path, &said).expect("the golden file");
    }
    let expected = fs::read_to_string(&path).expect("the golden file; DIRTYRIG_BLESS=1 writes it");
    assert_eq!(
        said, expected,
        "{file}: DIRTYRIG_BLESS=1 writes it anew if the change is wanted"
    );
}

#[test]
fn every_format_is_what_it_was() {
    golden(Format::Table, "check.txt");
    golden(Format::Json, "check.json");
    golden(Format::Junit, "check.xml");
    golden(Format::Md, "check.md");
}

#[test]
fn a_server_sees_the_regression_as_a_failure_and_nothing_else_as_one() {
    let text = print(&outcome(), Format::Junit, None).expect("XML");
    assert_eq!(
        text.matches("<failure").count(),
        outcome().count(crate::check::Verdict::Regressed)
    );
    assert_eq!(
        text.matches("<skipped").count(),
        outcome().count(crate::check::Verdict::CantTell)
    );
    assert!(outcome().is_regression());
}

#[test]
fn a_comment_fits_and_leaves_out_what_matters_least_first() {
    let markdown = |outcome: &Outcome, most| print(outcome, Format::Md, most);
    let mut many = outcome();
    many.comparisons = compare(&rows(5000.0), &rows(6500.0))
        .into_iter()
        .flat_map(|one| vec![one; 50])
        .collect();
    let whole = markdown(&many, None).expect("text");
    assert_eq!(markdown(&many, Some(whole.len())).expect("it fits as it is"), whole);
    let mut shortest = whole.len();
    loop {
        let Ok(text) = markdown(&many, Some(shortest - 1)) else {
            break;
        };
        assert!(text.len() < shortest, "{} of {shortest}", text.len());
        assert!(
            text.starts_with("### Regressed\n\n700 comparisons: 50 regressed"),
            "{text}"
        );
        assert!(
            text.contains("Left out for want of room: ") && text.contains("figures without a change"),
            "{text}"
        );
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
        let (shown, omitted) = (text.matches("| regressed |").count(), text.contains(" changes,"));
        assert!(shown == 50 || omitted, "{text}");
        shortest = text.len();
    }
    let error = markdown(&many, Some(10)).expect_err("too little").to_string();
    assert!(
        error.contains("--max-bytes 10") && error.contains(&shortest.to_string()),
        "{error}"
    );
}
