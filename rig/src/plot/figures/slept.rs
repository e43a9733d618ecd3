//! Whether vCPUs slept as long as they were asked to.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::positive_range,
        page::{Key, Mark, Page, Panel},
        style,
    },
    grid,
};

pub(crate) const FIGURE: Figure = Figure {
    name: "slept",
    about: "throttle asked for against slept, a point for each vCPU of each run",
    pages,
};

fn pages(view: &RecordingView<'_>, _choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    // Asked for and slept, as shares of the time, with the limiter.
    let share = |us: u64, measured_s: f64| us as f64 / 1e4 / measured_s;
    let rows: Vec<(&str, (f64, f64))> = view
        .summaries
        .iter()
        .filter(|row| row.measured_s > 0.0)
        .filter_map(|row| {
            let (asked, slept) = row.asked_us.filter(|&us| us > 0).zip(row.slept_us)?;
            let shares = (share(asked, row.measured_s), share(slept, row.measured_s));
            Some((row.limiter.as_str(), shares))
        })
        .collect();
    if rows.is_empty() {
        return Err(Skip::because("no vCPU was asked to sleep"));
    }
    let mut limiters: Vec<&str> = rows.iter().map(|(limiter, _)| *limiter).collect();
    limiters.sort_unstable();
    limiters.dedup();
    let points = |limiter: &str| -> Vec<(f64, f64)> {
        let own = rows.iter().filter(|(of, _)| *of == limiter);
        own.map(|(_, shares)| *shares).collect()
    };
    let all: Vec<(f64, f64)> = limiters.iter().flat_map(|limiter| points(limiter)).collect();
    let (low, high) = positive_range(all.iter().flat_map(|(a, s)| [*a, *s])).unwrap_or((1.0, 100.0));
    let axis = |title: &str, high: f64| Axis::decades(title, low, high, 12);
    let y = axis("slept (% of time)", high);
    let y = if all.iter().any(|(_, slept)| *slept <= 0.0) {
        y.and_zero()
    } else {
        y
    };
    let (columns, panel_size) = grid(1);
    let mut legend: Vec<Key> = limiters
        .iter()
        .enumerate()
        .map(|(i, limiter)| {
            let n = points(limiter).len();
            Key::glyph(style::reading(i).1, format!("{limiter} (n = {n})"))
        })
        .collect();
    legend.push(Key::line(style::reference(style::GREY, style::SOLID), "slept = asked"));
    let mut marks = vec![Mark::Line {
        points: vec![(low, low), (high, high)],
        stroke: style::reference(style::GREY, style::SOLID),
    }];
    marks.extend(limiters.iter().enumerate().map(|(i, limiter)| Mark::Points {
        points: points(limiter),
        glyph: style::reading(i).1,
    }));
    Ok(vec![Page {
        suffix: String::new(),
        title: "Sleep asked for against slept".to_owned(),
        subtitle: vec![
            format!("{} \u{b7} {}", view.title, view.machine),
            "a point: one vCPU of one run, sums over its settled part".to_owned(),
        ],
        legend,
        panels: vec![Panel {
            title: String::new(),
            x: axis("asked for (% of time)", high),
            y,
            marks,
        }],
        columns,
        panel_size,
        notes: vec![
            "Below the line: sleeps were cut short, as by a kick. Asked can exceed 100 %, slept can't by more than the sleep that \
             was under way."
                .to_owned(),
        ],
    }])
}
