//! The rows as a table, for a terminal or in Markdown.

use comfy_table::{CellAlignment, Table, presets};

use super::rows::Row;
use crate::model::Spread;

/// What the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A terminal.
    Plain,
    /// A document.
    Markdown,
}

type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 12] = [
    ("limiter", |row| row.limiter.clone()),
    ("vCPU", |row| match row.vcpu {
        Some(vcpu) => format!("{vcpu} {}", row.guest.as_deref().unwrap_or("-")),
        None => "all".to_owned(),
    }),
    ("at s", |row| row.at_s.to_string()),
    ("quota", |row| {
        row.quota_mib_s
            .map_or_else(|| "none".to_owned(), |quota| quota.to_string())
    }),
    ("truth MiB/s", |row| {
        let reads = row.read_mib_s.is_some_and(|read| read.median > 0.0);
        let wrote = row.rate_mib_s.is_some_and(|rate| rate.median > 0.0);
        words(if reads && !wrote {
            row.read_mib_s
        } else {
            row.rate_mib_s
        })
    }),
    ("settle s", settle),
    ("overshoot %", |row| words(row.overshoot_pct)),
    ("error %", |row| words(row.error_pct)),
    ("longest stall ms", |row| words(row.longest_stall_ms)),
    ("of unlimited %", |row| words(row.of_unlimited_pct)),
    ("CPU cost %", |row| words(row.cost_pct)),
    ("floor MiB/s", |row| {
        row.floor_mib_s.map_or_else(|| "-".to_owned(), number)
    }),
];

/// Medians, and the lowest and the highest of the repetitions where there are several.
pub fn table(rows: &[Row], style: Style) -> String {
    let mut table = Table::new();
    table
        .load_preset(match style {
            Style::Plain => presets::NOTHING,
            Style::Markdown => presets::ASCII_MARKDOWN,
        })
        .set_header(COLUMNS.iter().map(|(heading, _)| *heading));
    for row in rows {
        table.add_row(COLUMNS.iter().map(|(_, cell)| cell(row)));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn settle(row: &Row) -> String {
    match row.settle_s {
        None => "-".to_owned(),
        Some(_) if row.settled == 0 => "never".to_owned(),
        Some(spread) if row.settled < row.repetitions => {
            format!(
                "{} ({} of {} settled)",
                number(spread.median),
                row.settled,
                row.repetitions
            )
        }
        Some(_) => words(row.settle_s),
    }
}

fn words(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |Spread { median, low, high }| {
            let (middle, low, high) = (number(median), number(low), number(high));
            if low == high {
                middle
            } else {
                format!("{middle} ({low} to {high})")
            }
        },
    )
}

/// Three significant digits, none below a hundredth.
fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text == "-0.00" { "0.00".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let spread = |median| {
            Some(Spread {
                median,
                low: median,
                high: 2.0 * median,
            })
        };
        Row {
            limiter: "budget".to_owned(),
            vcpu: Some(0),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(65536),
            at_s: 4.0,
            quota_mib_s: Some(100.0),
            repetitions: 3,
            settled: 3,
            settle_s: spread(0.02),
            overshoot_pct: None,
            rate_mib_s: spread(100.0),
            read_mib_s: spread(0.0),
            error_pct: None,
            longest_stall_ms: spread(5.0),
            of_unlimited_pct: None,
            cost_pct: None,
            floor_mib_s: None,
        }
    }

    #[test]
    fn a_document_gets_markdown_and_spreads_are_shown() {
        let text = table(&[row()], Style::Markdown);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("| limiter") && lines[1].starts_with("|--"),
            "{text}"
        );
        assert!(lines[2].contains("0.02 (0.02 to 0.04)"), "{text}");
    }

    #[test]
    fn who_never_settled_is_said_not_to_have() {
        let some = Row { settled: 2, ..row() };
        assert_eq!(settle(&some), "0.02 (2 of 3 settled)");
        assert_eq!(settle(&Row { settled: 0, ..row() }), "never");
    }
}
