//! For people on a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::{Outcome, change, figure, interval, repetitions, verdict};

const HEADINGS: [&str; 9] = [
    "cell",
    "metric",
    "n",
    "baseline",
    "candidate",
    "change",
    "95 % interval",
    "p",
    "verdict",
];

pub(super) fn print(outcome: &Outcome) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADINGS);
    let mut last = None;
    for one in &outcome.comparisons {
        // Its name once, above its metrics.
        let name = if last.replace(&one.cell) == Some(&one.cell) {
            String::new()
        } else {
            one.cell.to_string()
        };
        table.add_row([
            name,
            one.metric.name.to_owned(),
            repetitions(one),
            figure(one.baseline.median),
            figure(one.candidate.median),
            change(one, one.change),
            interval(one),
            p_value(one.p_corrected),
            verdict(one),
        ]);
    }
    for (index, heading) in HEADINGS.iter().enumerate() {
        if !matches!(*heading, "cell" | "metric" | "verdict") {
            let column = table.column_mut(index).expect("there is one for each heading");
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

fn p_value(p: f64) -> String {
    if p < 0.0001 {
        "<0.0001".to_owned()
    } else {
        format!("{p:.4}")
    }
}
