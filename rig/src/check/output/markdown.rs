//! For a comment on a change: the headline, what changed as a table, and the rest folded away.

use super::{Comparison, Outcome, change, figure, interval, repetitions, verdict};
use crate::check::Verdict;

const HEADING: &str = "| cell | metric | n | baseline | candidate | change | 95 % interval | p | verdict |\n\
                       |---|---|---:|---:|---:|---:|---:|---:|---|";

pub(super) fn print(outcome: &Outcome) -> String {
    let heading = if outcome.is_regression() {
        "### Regressed"
    } else {
        "### No regression"
    };
    let (changed, rest): (Vec<_>, Vec<_>) = outcome
        .comparisons
        .iter()
        .partition(|one| matches!(one.verdict, Verdict::Regressed | Verdict::Improved));
    let mut parts = vec![heading.to_owned(), format!("{}.", outcome.headline())];
    parts.extend(outcome.notes.iter().map(|note| format!("> {note}")));
    if !changed.is_empty() {
        parts.push(table(&changed));
    }
    if !rest.is_empty() {
        parts.push(format!(
            "<details><summary>{} without a change that can be shown</summary>\n\n{}\n\n</details>",
            rest.len(),
            table(&rest)
        ));
    }
    parts.push(format!(
        "Baseline `{}` ({}), candidate `{}` ({}).",
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
