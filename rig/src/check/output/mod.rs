//! The outcome of a check, as text.

mod json;
mod junit;
mod markdown;
mod table;

use super::{Comparison, Outcome};

/// How to print it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Table,
    /// Every figure, for programs
    Json,
    /// XML as `JUnit` has it: a suite a cell, a case a metric
    Junit,
    /// A Markdown table, for a comment on a change
    Md,
}

/// Prints it; Markdown in at most `max_bytes`, where that is given.
pub fn print(outcome: &Outcome, format: Format, max_bytes: Option<usize>) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(table::print(outcome)),
        Format::Json => json::print(outcome),
        Format::Junit => junit::print(outcome),
        Format::Md => markdown::print(outcome, max_bytes),
    }
}

/// A figure with three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A change with its sign: in percent of the baseline where that has a meaning.
fn change(one: &Comparison, change: f64) -> String {
    let text = |value: f64, unit: &str| {
        // What rounds to nothing has no sign.
        let value = if value.abs() < 0.005 { 0.0 } else { value };
        let sign = if value > 0.0 { "+" } else { "" };
        format!("{sign}{}{unit}", figure(value))
    };
    match one.pct(change) {
        Some(pct) if one.metric.unit != "%" => text(pct, " %"),
        _ => text(
            change,
            &format!(
                " {}",
                if one.metric.unit == "%" {
                    "points"
                } else {
                    one.metric.unit
                }
            ),
        ),
    }
}

/// The interval of the change.
fn interval(one: &Comparison) -> String {
    let (low, high) = (change(one, one.interval.low), change(one, one.interval.high));
    format!("{low} to {high}")
}

/// The verdict, with how many repetitions it would take.
fn verdict(one: &Comparison) -> String {
    match one.needed {
        Some(n) if n >= super::power::MOST => format!("{} (scatters too much)", one.verdict.name()),
        Some(n) => format!("{} (needs {n})", one.verdict.name()),
        None => one.verdict.name().to_owned(),
    }
}

/// How many repetitions there are, as `10` or, where the sides differ, `10/8`.
fn repetitions(one: &Comparison) -> String {
    let (old, new) = (one.baseline.values.len(), one.candidate.values.len());
    if old == new {
        old.to_string()
    } else {
        format!("{old}/{new}")
    }
}

#[cfg(test)]
mod tests;
