//! Summaries as a table for people.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    model::{Summary, Verdict},
    recording::ranges,
};

/// One column: its heading and what it says of a row.
type Column = (&'static str, fn(&Summary) -> String);

/// What tells the cells of a sweep apart, before what came out of them.
const SETTINGS: [Column; 4] = [
    ("limiter", |row| row.limiter.clone()),
    ("ring", |row| or_dash(row.ring_entries, |entries| entries.to_string())),
    ("period s", |row| (row.period_ms as f64 / 1000.0).to_string()),
    ("vCPU", |row| row.vcpu.to_string()),
];

const RESULTS: [Column; 10] = [
    ("guest", |row| or_dash(row.guest.clone(), |guest| guest)),
    ("quota", |row| match (row.quota_mib_s, row.vm_quota_mib_s) {
        (Some(own), _) => own.to_string(),
        (None, Some(vm)) => format!("VM {vm}"),
        (None, None) => "none".to_owned(),
    }),
    ("reads", |row| or_dash(row.ring_median_mib_s, rate)),
    ("truth", |row| or_dash(row.guest_mib_s, rate)),
    ("\u{b1}", |row| {
        let interval = row.guest_ci_low_mib_s.zip(row.guest_ci_high_mib_s);
        or_dash(interval, |(low, high)| rate((high - low) / 2.0))
    }),
    ("floor", |row| or_dash(row.predicted_floor_mib_s, rate)),
    ("in guest %", |row| or_dash(row.utilisation_pct, rate)),
    ("settled s", |row| {
        or_dash(row.settle_s, |seconds| format!("{seconds:.1}"))
    }),
    ("longest stall ms", |row| {
        or_dash(row.stall_max_us, |us| rate(us / 1000.0))
    }),
    ("verdict", |row| verdict(row.verdict).to_owned()),
];

/// Said where it is not the rig's own VM everywhere.
const VMM: Column = ("vmm", |row| row.vmm.clone());

/// The vCPUs of one cell.
pub(super) fn of_cell(rows: &[Summary]) -> String {
    let columns: Vec<Column> = SETTINGS[3..].iter().chain(&RESULTS).copied().collect();
    draw(&columns, &rows.iter().collect::<Vec<_>>())
}

/// The cells of a sweep, in the order of their settings.
pub(super) fn of_sweep(rows: &[Summary]) -> String {
    let mut sorted: Vec<&Summary> = rows.iter().collect();
    let quota = |row: &Summary| row.quota_mib_s.unwrap_or(f64::INFINITY);
    sorted.sort_by(|a, b| {
        (&a.limiter, a.ring_entries, a.period_ms)
            .cmp(&(&b.limiter, b.ring_entries, b.period_ms))
            .then(quota(a).total_cmp(&quota(b)))
            .then((&a.guest, a.cell, a.vcpu).cmp(&(&b.guest, b.cell, b.vcpu)))
    });
    let vmm: Option<Column> = rows.iter().any(|row| row.vmm != "rig").then_some(VMM);
    let columns: Vec<Column> = vmm.iter().chain(SETTINGS.iter()).chain(&RESULTS).copied().collect();
    draw(&columns, &sorted)
}

fn draw(columns: &[Column], rows: &[&Summary]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows {
        table.add_row(columns.iter().map(|(_, cell)| cell(row)));
    }
    for (index, (heading, _)) in columns.iter().enumerate() {
        if !matches!(*heading, "vmm" | "limiter" | "guest" | "verdict") {
            table
                .column_mut(index)
                .expect("there is one for each heading")
                .set_cell_alignment(CellAlignment::Right);
        }
    }
    // Its lines are padded to one width, which a terminal narrower than that would break.
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The verdict of each vCPU with its reason, those that share it on one line.
pub(super) fn reasons(rows: &[Summary]) -> Vec<String> {
    let mut lines: Vec<(&Summary, BTreeSet<u32>)> = Vec::new();
    for row in rows {
        let same = |(of, _): &&mut (&Summary, BTreeSet<u32>)| of.verdict == row.verdict && of.reason == row.reason;
        match lines.iter_mut().find(same) {
            Some((_, vcpus)) => drop(vcpus.insert(row.vcpu)),
            None => lines.push((row, BTreeSet::from([row.vcpu]))),
        }
    }
    let line = |(row, vcpus): (&Summary, BTreeSet<u32>)| {
        let noun = if vcpus.len() == 1 { "vCPU" } else { "vCPUs" };
        format!("{noun} {}: {}: {}", ranges(&vcpus), verdict(row.verdict), row.reason)
    };
    lines.into_iter().map(line).collect()
}

/// A verdict as people and summary.csv write it.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    verdict.name()
}

/// What is not known, or does not exist, is no number.
pub(super) fn or_dash<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), words)
}

/// Three significant digits where it matters, none after the point where it doesn't.
fn rate(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_their_settings_and_aligned() {
        let row = |cell, limiter: &str, quota| Summary {
            cell,
            limiter: limiter.to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 500,
            quota_mib_s: quota,
            guest_mib_s: Some(123.4),
            vmm: "rig".to_owned(),
            ..Summary::default()
        };
        let rows = [
            row(2, "qemu-10", None),
            row(1, "qemu-10", Some(25.0)),
            row(0, "budget", Some(500.0)),
        ];
        let text = of_sweep(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].trim_start().starts_with("limiter"), "{text}");
        assert!(
            lines[1].contains("budget") && lines[2].contains("25") && lines[3].contains("none"),
            "{text}"
        );
        let truth = lines[0].find("truth").expect("a heading") + "truth".len();
        assert!(lines[1..].iter().all(|line| line[..truth].ends_with("123")), "{text}");
    }

    #[test]
    fn vcpus_that_share_a_verdict_share_its_line() {
        let row = |vcpu, reason: &str| Summary {
            vcpu,
            reason: reason.to_owned(),
            verdict: Verdict::Held,
            ..Summary::default()
        };
        let rows = [
            row(0, "as asked"),
            row(1, "as asked"),
            row(2, "barely"),
            row(3, "as asked"),
        ];
        assert_eq!(reasons(&rows), ["vCPUs 0-1, 3: held: as asked", "vCPU 2: held: barely"]);
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let text = of_cell(&[Summary::default()]);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        let dashes = row.iter().filter(|word| **word == "-").count();
        assert_eq!((row.len(), dashes), (11, 8), "all but vCPU, quota and verdict: {text}");
    }

    #[test]
    fn the_vmm_is_said_where_there_is_another() {
        let of = |vmm: &str| Summary {
            vmm: vmm.to_owned(),
            ..Summary::default()
        };
        assert!(!of_sweep(&[of("rig")]).contains("vmm"));
        assert!(of_sweep(&[of("rig"), of("qemu-10.0.2")]).contains("qemu-10.0.2"));
    }
}
