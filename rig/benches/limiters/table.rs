//! The table, in Markdown.

use std::fmt::Write as _;

use dirtyrig_rig::{plot::machine_line, scenario::BURST};

use super::cells::Bench;

/// Which values, what they are, their unit, and the bounds for `budget` and `budget-ebpf`.
type Line = (&'static str, &'static str, &'static str, Option<f64>, Option<f64>);

const LINES: [Line; 25] = [
    ("low 256", "error at 256 MiB/s, ring 65536, over 6 s", "%", None, None),
    ("low 256 worst", "the same, worst 2 s", "%", None, None),
    ("low 128", "error at 128 MiB/s, ring 65536, over 6 s", "%", None, None),
    ("low 128 worst", "the same, worst 2 s", "%", None, None),
    (
        "low 1",
        "error at 1 MiB/s, ring 65536, over 6 s",
        "%",
        Some(2.0),
        Some(2.0),
    ),
    ("low 1 worst", "the same, worst 2 s", "%", None, None),
    ("low 0.25", "error at 0.25 MiB/s, ring 65536, over 6 s", "%", None, None),
    ("low 0.25 worst", "the same, worst 2 s", "%", None, None),
    (
        "settle unlimited",
        "settle time, unlimited to 100 MiB/s",
        "ms",
        Some(200.0),
        Some(100.0),
    ),
    (
        "settle 500",
        "settle time, 500 to 100 MiB/s",
        "ms",
        Some(200.0),
        Some(100.0),
    ),
    (
        "settle 25",
        "settle time, 25 to 300 MiB/s",
        "ms",
        Some(200.0),
        Some(100.0),
    ),
    ("error 25", "steady-state error at 25 MiB/s", "%", Some(2.0), Some(0.5)),
    (
        "error 100",
        "steady-state error at 100 MiB/s",
        "%",
        Some(2.0),
        Some(0.5),
    ),
    (
        "error 500",
        "steady-state error at 500 MiB/s",
        "%",
        Some(2.0),
        Some(0.5),
    ),
    ("stall 25", "longest stall at 25 MiB/s", "ms", Some(60.0), Some(12.0)),
    (
        "cost 25",
        "CPU time of limiting at 25 MiB/s, of one CPU",
        "%",
        None,
        None,
    ),
    ("ring 1024", "error at 25 MiB/s, ring 1024", "%", Some(2.0), Some(0.5)),
    (
        "ring 1024 stall",
        "longest stall at 25 MiB/s, ring 1024",
        "ms",
        Some(60.0),
        Some(12.0),
    ),
    ("ring 4096", "error at 25 MiB/s, ring 4096", "%", Some(2.0), Some(0.5)),
    (
        "ring 4096 stall",
        "longest stall at 25 MiB/s, ring 4096",
        "ms",
        Some(60.0),
        Some(12.0),
    ),
    (
        "cost unlimited",
        "cost to a vCPU whose quota is out of reach",
        "%",
        Some(1.0),
        Some(4.0),
    ),
    (
        "reader beside",
        "a reader beside a vCPU limited to 25 MiB/s, slower than alone by",
        "%",
        Some(1.0),
        Some(1.0),
    ),
    (
        "writer beside",
        "an unlimited writer beside it, slower than alone by",
        "%",
        None,
        None,
    ),
    (
        "vm sum",
        "error of two vCPUs under one quota of 100 MiB/s",
        "%",
        Some(1.0),
        Some(1.0),
    ),
    (
        "vm reader",
        "error of one beside a vCPU that only reads, under one quota of 100 MiB/s",
        "%",
        Some(1.0),
        Some(1.0),
    ),
];

const FLOW: Line = (
    "vm flow",
    "time until the share of a stopped vCPU is the other's",
    "ms",
    Some(200.0),
    Some(200.0),
);

pub(crate) fn markdown(bench: &Bench) -> String {
    let machine = serde_json::to_value(&bench.facts).ok();
    let machine = machine.and_then(|facts| facts.as_object().map(machine_line));
    let count = || bench.values.values().map(Vec::len);
    let (fewest, most) = (count().min().unwrap_or(0), count().max().unwrap_or(0));
    let mut text = format!(
        "{}. By the guest's own counter, sampled every 10 ms; medians (quartiles) of {fewest} to {most} \
         values. A settle time of 0 is one below 10 ms. Buckets of `--burst {}`. In bold: beyond its bound. Out of reach: the quota is above what the \
         guest dirties unlimited.\n\n\
         | | `qemu-7.2` | `budget` | bound | `budget-ebpf` | bound |\n|---|---|---|---|---|---|\n",
        machine.unwrap_or_default(),
        humantime::format_duration(BURST)
    );
    for line in LINES.iter().chain([&FLOW]) {
        let (row, what, unit, budget, ebpf) = *line;
        let mut known = bench.values.keys().chain(bench.out_of_reach.keys());
        if !known.any(|(known, _)| *known == row) {
            continue;
        }
        let cells = [
            value(bench, row, "qemu-7.2", None),
            value(bench, row, "budget", budget),
            bound(budget, unit),
            value(bench, row, "budget-ebpf", ebpf),
            bound(ebpf, unit),
        ];
        let _ = writeln!(text, "| {what}, {unit} | {} |", cells.join(" | "));
    }
    let slowed = |row| value(bench, row, "auto-converge", None);
    let (writer, reader) = (slowed("slowed writer"), slowed("slowed reader"));
    if !writer.is_empty() {
        let _ = writeln!(
            text,
            "\n`auto-converge` at a quota of 25 MiB/s slows the vCPU that writes by {writer} %, and the one that only reads by \
             {reader} %."
        );
    }
    text
}

fn bound(bound: Option<f64>, unit: &str) -> String {
    bound.map_or_else(String::new, |bound| format!("{bound} {unit}"))
}

/// In bold where the median is beyond the bound.
fn value(bench: &Bench, row: &'static str, column: &'static str, bound: Option<f64>) -> String {
    let out_of_reach = bench.out_of_reach.get(&(row, column)).copied().unwrap_or(0);
    let Some(values) = bench.values.get(&(row, column)) else {
        return if out_of_reach > 0 { "out of reach" } else { "" }.to_owned();
    };
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (low, median, high) = (at(0.25), at(0.5), at(0.75));
    let text = if low.total_cmp(&high).is_eq() {
        number(median)
    } else {
        format!("{} ({} to {})", number(median), number(low), number(high))
    };
    let text = if bound.is_some_and(|bound| median > bound) {
        format!("**{text}**")
    } else {
        text
    };
    match out_of_reach {
        0 => text,
        times => format!("{text}, {times} times out of reach"),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_infinite() => "never".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
