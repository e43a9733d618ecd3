//! The findings and the table of points, to be pasted into a mail or an issue.

use std::fmt::Write as _;

use super::{Part, Report, points::Point, rate::rate};
use crate::model::Spread;

/// Writes it. The first line is a comment that names its maker.
pub fn render(report: &Report) -> String {
    let mut text = format!("<!-- {} {} -->\n", super::MARK, super::SCHEMA_VERSION);
    for part in &report.recordings {
        recording(&mut text, part);
    }
    if !report.comparison.is_empty() {
        compared(&mut text, report);
    }
    text
}

// Writing to a String can't fail.
macro_rules! line {
    ($text:expr, $($format:tt)*) => { let _ = writeln!($text, $($format)*); };
}

fn recording(text: &mut String, part: &Part) {
    line!(
        text,
        "\n# {}\n\n{}; dirtyrig {} ({}), {}\n",
        escaped(&part.name),
        escaped(&part.machine),
        escaped(&part.manifest.tool_version),
        escaped(&part.manifest.git_revision),
        escaped(&part.manifest.started_utc)
    );
    for finding in &part.findings {
        line!(text, "- {}", escaped(finding));
    }
    line!(text, "\n**How far to trust this**\n");
    for words in &part.trust {
        line!(text, "- {}", escaped(words));
    }
    if part.points.is_empty() {
        return;
    }
    line!(
        text,
        "\nRates in MiB/s, median (lowest to highest) of n runs.\n\n\
         | limiter | ring | period s | guest | quota | floor | reads | truth | stall p99 ms | n | held | verdict |\n\
         |---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|---|"
    );
    for point in &part.points {
        line!(
            text,
            "| {} | {} | {} |",
            settings(point),
            measured(point),
            point.verdict.name()
        );
    }
}

fn settings(point: &Point) -> String {
    let settings = &point.settings;
    format!(
        "{} | {} | {} | {} | {}",
        escaped(&settings.limiter),
        settings.ring_words(),
        settings.period_s(),
        escaped(&settings.guest_words()),
        point.quota_words(),
    )
}

fn measured(point: &Point) -> String {
    let stalls = point.stall_p99_us.map(|range| Spread {
        median: range.median / 1000.0,
        low: range.low / 1000.0,
        high: range.high / 1000.0,
    });
    format!(
        "{} | {} | {} | {} | {} | {}",
        point.predicted_floor_mib_s.map_or_else(|| "-".to_owned(), rate),
        range(point.ring_mib_s),
        range(point.guest_mib_s),
        range(stalls),
        point.runs,
        point.held,
    )
}

fn compared(text: &mut String, report: &Report) {
    let names: Vec<String> = report.recordings.iter().map(|part| escaped(&part.name)).collect();
    line!(
        text,
        "\n# Side by side\n\nTruth in MiB/s, median (lowest to highest).\n"
    );
    line!(
        text,
        "| limiter | ring | period s | guest | quota | {} |",
        names.join(" | ")
    );
    line!(text, "|---|--:|--:|---|--:|{}", "--:|".repeat(names.len()));
    for row in &report.comparison {
        let of = |name: &str| {
            let point = row.points.iter().find(|(of, _)| of == name);
            point.map_or_else(String::new, |(_, point)| range(point.guest_mib_s))
        };
        let values: Vec<String> = report.recordings.iter().map(|part| of(&part.name)).collect();
        line!(text, "| {} | {} |", settings(&row.points[0].1), values.join(" | "));
    }
}

/// A median with its range, where there is one.
pub(super) fn range(range: Option<Spread>) -> String {
    match range {
        None => "-".to_owned(),
        Some(Spread { median, low, high }) if low.total_cmp(&high).is_eq() => rate(median),
        Some(Spread { median, low, high }) => format!("{} ({} to {})", rate(median), rate(low), rate(high)),
    }
}

/// Without what Markdown, or the HTML in it, would take for its own.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '\n' | '\r' => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}
