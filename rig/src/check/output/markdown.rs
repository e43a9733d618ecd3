//! For a comment on a change: the headline, what changed as a table, and the rest folded away.

use anyhow::anyhow;

use super::{Comparison, Outcome, change, figure, interval, repetitions, verdict};
use crate::check::Verdict;

const HEADING: &str = "| cell | metric | n | baseline | candidate | change | 95 % interval | p | verdict |\n\
                       |---|---|---:|---:|---:|---:|---:|---:|---|";

/// What is shown: all of it, where there is room.
#[derive(Clone, Copy)]
struct Shown {
    /// Rows of what changed, regressions first.
    changed: usize,
    /// Whether the rest is there, and its notes.
    rest: bool,
    notes: bool,
}

/// As much as fits into `max_bytes`: the headline at least.
pub(super) fn print(outcome: &Outcome, max_bytes: Option<usize>) -> anyhow::Result<String> {
    let all = Shown {
        changed: usize::MAX,
        rest: true,
        notes: true,
    };
    let whole = text(outcome, all);
    let Some(most) = max_bytes.filter(|&most| whole.len() > most) else {
        return Ok(whole);
    };
    let without_rest = Shown { rest: false, ..all };
    let text_of = |changed, notes| {
        let shown = Shown {
            changed,
            notes,
            ..without_rest
        };
        text(outcome, shown)
    };
    let changed = outcome.comparisons.iter().filter(|one| is_change(one)).count();
    let candidates = (0..=changed)
        .rev()
        .map(|rows| (rows, true))
        .chain((0..=changed).rev().map(|rows| (rows, false)));
    let shortest = text_of(0, false).len();
    candidates
        .map(|(rows, notes)| text_of(rows, notes))
        .find(|text| text.len() <= most)
        .ok_or_else(|| anyhow!("`--max-bytes {most}` is too little: the headline alone takes {shortest}"))
}

fn is_change(one: &Comparison) -> bool {
    matches!(one.verdict, Verdict::Regressed | Verdict::Improved)
}

fn text(outcome: &Outcome, shown: Shown) -> String {
    let heading = if outcome.is_regression() {
        "### Regressed"
    } else {
        "### No regression"
    };
    let (mut changed, rest): (Vec<_>, Vec<_>) = outcome.comparisons.iter().partition(|one| is_change(one));
    changed.sort_by_key(|one| one.verdict);
    let left_out = changed.len().saturating_sub(shown.changed);
    changed.truncate(shown.changed);

    let mut parts = vec![heading.to_owned(), format!("{}.", outcome.headline())];
    let mut omitted = Vec::new();
    let notes: Vec<String> = outcome.notes.iter().cloned().chain(outcome.not_compared()).collect();
    if shown.notes {
        parts.extend(notes.iter().map(|note| format!("> {note}")));
    } else if !notes.is_empty() {
        omitted.push(format!("{} notes", notes.len()));
    }
    if !changed.is_empty() {
        parts.push(table(&changed));
    }
    if left_out > 0 {
        omitted.push(format!("{left_out} changes"));
    }
    if shown.rest && !rest.is_empty() {
        parts.push(format!(
            "<details><summary>{} without a change that can be shown</summary>\n\n{}\n\n</details>",
            rest.len(),
            table(&rest)
        ));
    } else if !rest.is_empty() {
        omitted.push(format!("{} figures without a change that can be shown", rest.len()));
    }
    if !omitted.is_empty() {
        parts.push(format!("Left out for want of room: {}.", omitted.join(", ")));
    }
    let older = outcome.baseline_dirs.len().saturating_sub(1);
    let older = if older > 0 {
        format!(" and {older} before it")
    } else {
        String::new()
    };
    parts.push(format!(
        "Baseline `{}` ({}){older}, candidate `{}` ({}).",
        outcome.baseline.dir, outcome.baseline.revision, outcome.candidate.dir, outcome.candidate.revision
    ));
    parts.join("\n\n")
}

fn table(rows: &[&Comparison]) -> String {
    let rows = rows.iter().map(|one| {
        format!(
            "| {} | `{}` | {} | {} | {} | {} | {} | {:.4} | {} |",
            one.cell,
            one.metric.name,
            repetitions(one),
            figure(one.baseline.median),
            figure(one.candidate.median),
            change(one, one.change),
            interval(one),
            one.p_corrected,
            verdict(one)
        )
    });
    let lines: Vec<String> = std::iter::once(HEADING.to_owned()).chain(rows).collect();
    lines.join("\n")
}
