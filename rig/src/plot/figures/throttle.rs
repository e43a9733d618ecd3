//! What the limiter did to a vCPU over time: the throttle in force, and the sleep that came of it.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Series, positive_range},
        page::{Key, Mark, Page, Panel},
        style,
    },
    chosen_series, time_subtitle,
};

pub(crate) const FIGURE: Figure = Figure {
    name: "throttle",
    about: "the throttle over time, the sleep that came of it, and the share of time slept",
    pages,
};

/// Cells by default: each takes a row of two panels.
const CELLS: usize = 3;
const ROWS_A_PAGE: usize = 4;

fn pages(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let (shown, note) = chosen_series(view, choice, CELLS);
    let throttled = |series: &Series<'_>| {
        series.samples.len() > 1
            && series.samples.iter().any(|s| {
                [s.throttle_us, s.asked_us, s.slept_us]
                    .iter()
                    .flatten()
                    .any(|&us| us > 0)
            })
    };
    let shown: Vec<_> = shown.into_iter().filter(throttled).collect();
    if shown.is_empty() {
        return Err(Skip::because("no vCPU of the cells shown was throttled"));
    }
    let pages: Vec<_> = shown.chunks(ROWS_A_PAGE).collect();
    let of = pages.len();
    Ok(pages
        .into_iter()
        .enumerate()
        .map(|(i, rows)| Page {
            suffix: if i > 0 { format!("-{}", i + 1) } else { String::new() },
            title: if of > 1 {
                format!("Throttle over time ({} of {of})", i + 1)
            } else {
                "Throttle over time".to_owned()
            },
            subtitle: time_subtitle(view, rows),
            legend: vec![Key::line(style::READING, "asked for"), Key::line(style::TRUTH, "slept")],
            panels: rows
                .iter()
                .flat_map(|series| [in_force(series), shares(series)])
                .collect(),
            columns: 2,
            panel_size: (500, if rows.len() == 1 { 360 } else { 270 }),
            notes: note.clone().into_iter().collect(),
        })
        .collect())
}

fn moments(series: &Series<'_>) -> Vec<Mark> {
    let moment = |(x, text)| Mark::Moment { x, text };
    series.changes().into_iter().map(moment).collect()
}

fn time_axis(series: &Series<'_>) -> Axis {
    let (from, to) = series.span();
    Axis::span("time since the first limit (s)", from, to, 6)
}

/// The sleep a pause: as the law has set it, and as it came out.
fn in_force(series: &Series<'_>) -> Panel {
    let asked: Vec<(f64, f64)> = series
        .samples
        .iter()
        .filter_map(|s| Some((s.t_s, s.throttle_us? as f64 / 1e3)))
        .collect();
    let slept = slept_a_pause(series);
    let (low, high) = positive_range(asked.iter().chain(&slept).map(|p| p.1)).unwrap_or((0.1, 1.0));
    let y = Axis::decades("sleep a pause (ms)", low.max(high / 1e5), high, 9).and_zero();
    let mut marks = moments(series);
    marks.push(Mark::Line {
        points: slept,
        stroke: style::TRUTH,
    });
    marks.push(Mark::Line {
        points: steps(&asked),
        stroke: style::READING,
    });
    Panel {
        title: series.label(),
        x: time_axis(series),
        y,
        marks,
    }
}

/// What was slept after the pauses of each sample, a pause: from that sample to the next one with pauses in it, because a
/// sleep may last for many samples.
fn slept_a_pause(series: &Series<'_>) -> Vec<(f64, f64)> {
    let rows = &series.samples;
    let gain = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
    let pauses = |at: usize| gain(rows[at - 1].ring_full_exits, rows[at].ring_full_exits).unwrap_or(0);
    let with_pauses: Vec<usize> = (1..rows.len()).filter(|&at| pauses(at) > 0).collect();
    // The last ones may not be over: they have no end.
    let ends = with_pauses.iter().skip(1).map(|next| next - 1);
    with_pauses
        .iter()
        .zip(ends)
        .filter_map(|(&at, end)| {
            let slept_us = gain(rows[at - 1].slept_us, rows[end].slept_us)?;
            Some((rows[at].t_s, slept_us as f64 / pauses(at) as f64 / 1e3))
        })
        .filter(|(_, slept_ms)| *slept_ms > 0.0)
        .collect()
}

/// Slept since the previous sample as a share of that time.
fn shares(series: &Series<'_>) -> Panel {
    let share = |counter: fn(&crate::model::Sample) -> Option<u64>| -> Vec<(f64, f64)> {
        series
            .samples
            .windows(2)
            .filter_map(|pair| {
                let span = pair[1].t_s - pair[0].t_s;
                let part = counter(pair[1])?.checked_sub(counter(pair[0])?)?;
                (span > 0.0).then_some((pair[1].t_s, part as f64 / 1e4 / span))
            })
            .collect()
    };
    let slept = share(|s| s.slept_us);
    let mut marks = moments(series);
    marks.push(Mark::Line {
        points: slept,
        stroke: style::TRUTH,
    });
    Panel {
        title: String::from("share of time"),
        x: time_axis(series),
        y: Axis::linear("sleep (% of time)", 0.0, 100.0, 5),
        marks,
    }
}

/// A value that holds until the next one.
fn steps(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    for (x, y) in points.iter().copied() {
        if let Some((_, before)) = steps.last().copied()
            && before.total_cmp(&y).is_ne()
        {
            steps.push((x, before));
        }
        steps.push((x, y));
    }
    steps
}
