//! How the rate follows the quota over time, as the limiter reads it and as the guest counts it.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::{Axis, number},
        data::{Series, median, plural, positive_range, range},
        page::{Key, Mark, Page, Panel},
        style,
    },
    chosen_series, grid, paged, time_subtitle,
};
use crate::recording::schema::OBSERVED;

pub(crate) const FIGURE: Figure = Figure {
    name: "convergence",
    about: "rate over time: the limiter's reading, the guest's truth, the quota and its changes",
    pages,
};

/// How many times the median of the highest tenth a rate may be before it is cut off instead of squeezing the rest.
const OUTLIER: f64 = 8.0;

fn pages(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let (shown, note) = chosen_series(view, choice, 4);
    if shown.iter().all(|series| series.samples.len() < 2) {
        return Err(Skip::because("no cell has two samples"));
    }
    let shown: Vec<_> = shown.into_iter().filter(|series| series.samples.len() > 1).collect();
    Ok(paged(shown.len(), |here| {
        let here = &shown[here];
        let (columns, panel_size) = grid(here.len());
        let mut notes = Vec::new();
        let axes = axes(here, (8, 8), &mut notes);
        let panels = here.iter().map(|series| panel(series, axes.clone())).collect();
        notes.extend(note.clone());
        Page {
            suffix: String::new(),
            title: "Dirty rate over time".to_owned(),
            subtitle: time_subtitle(view, here),
            legend: legend(here),
            panels,
            columns,
            panel_size,
            notes,
        }
    }))
}

pub(super) fn legend(series: &[Series<'_>]) -> Vec<Key> {
    let observed = |series: &Series<'_>| series.summary.is_some_and(|row| row.limiter == OBSERVED);
    if series.iter().all(observed) {
        return vec![Key::line(style::READING, "pages that the kernel logged")];
    }
    // A guest that is not ours keeps no counter.
    let told = |series: &Series<'_>| series.samples.iter().any(|s| s.guest_mib_s.is_some());
    let truth = series
        .iter()
        .any(told)
        .then(|| Key::line(style::TRUTH, "guest's counter (truth)"));
    let others = [
        Key::line(style::READING, "limiter's reading"),
        Key::line(style::QUOTA, "quota"),
    ];
    truth.into_iter().chain(others).collect()
}

/// Axes that hold all `series`, so that panels side by side compare; what is cut off goes into `notes`.
pub(super) fn axes(series: &[Series<'_>], ticks: (usize, usize), notes: &mut Vec<String>) -> (Axis, Axis) {
    let samples = || series.iter().flat_map(|series| series.samples.iter());
    let rates = || samples().flat_map(|s| [s.ring_mib_s, s.guest_mib_s]).flatten();
    let quotas = || samples().filter_map(|s| s.quota_mib_s);
    let (lowest, highest) = positive_range(rates().chain(quotas())).unwrap_or((1.0, 2.0));
    let top = highest.min(sensible_top(rates())).max(quotas().fold(0.0, f64::max));
    let cut = rates().filter(|rate| *rate > top * 1.0001).count();
    if cut > 0 {
        notes.push(format!(
            "{cut} {} above {} MiB/s cut off (highest {}).",
            plural(cut, "value"),
            number(top),
            number(highest)
        ));
    }
    // On a linear axis an unlimited rate would flatten every quota; on a logarithmic one a stopped guest needs its zero.
    let smallest_quota = quotas().fold(f64::INFINITY, f64::min);
    let y = if smallest_quota * 6.0 < top {
        let low = lowest.max(top / 16384.0).min(smallest_quota / 1.5);
        let axis = Axis::powers_of_two("dirty rate (MiB/s)", low, top, ticks.1);
        if rates().any(|rate| rate < low) {
            axis.and_zero()
        } else {
            axis
        }
    } else {
        Axis::linear("dirty rate (MiB/s)", 0.0, top * 1.02, ticks.1)
    };
    let (from, to) = range(series.iter().flat_map(|s| <[f64; 2]>::from(s.span()))).unwrap_or((0.0, 1.0));
    (Axis::span("time since the first limit (s)", from, to, ticks.0), y)
}

/// One vCPU's rates.
pub(super) fn panel(series: &Series<'_>, (x, y): (Axis, Axis)) -> Panel {
    let mut marks: Vec<_> = series
        .changes()
        .into_iter()
        .map(|(x, quota)| Mark::Moment { x, text: quota })
        .collect();
    marks.extend(quota_steps(series).into_iter().map(|points| Mark::Line {
        points,
        stroke: style::QUOTA,
    }));
    let over_time = |value: fn(&crate::model::Sample) -> Option<f64>| {
        let known = series.samples.iter().filter_map(|s| Some((s.t_s, value(s)?)));
        known.collect()
    };
    marks.push(Mark::Line {
        points: over_time(|s| s.guest_mib_s),
        stroke: style::TRUTH,
    });
    marks.push(Mark::Line {
        points: over_time(|s| s.ring_mib_s),
        stroke: style::READING,
    });
    Panel {
        title: series.label(),
        x,
        y,
        marks,
    }
}

/// The quota as horizontal pieces, joined where it changes and open where there is none.
pub(super) fn quota_steps(series: &Series<'_>) -> Vec<Vec<(f64, f64)>> {
    series
        .samples
        .chunk_by(|a, b| a.quota_mib_s.is_some() == b.quota_mib_s.is_some())
        .map(|run| {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for (sample, quota) in run.iter().filter_map(|s| s.quota_mib_s.map(|q| (s, q))) {
                if let Some((_, before)) = points.last().copied()
                    && before.total_cmp(&quota).is_ne()
                {
                    points.push((sample.t_s, before));
                }
                points.push((sample.t_s, quota));
            }
            points
        })
        .filter(|points| points.len() > 1)
        .collect()
}

/// The rate above which a value is an outlier of measurement.
fn sensible_top(rates: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = rates.collect();
    sorted.sort_by(f64::total_cmp);
    let tenth = &sorted[sorted.len() - sorted.len().div_ceil(10)..];
    median(tenth).map_or(f64::INFINITY, |usual| usual * OUTLIER)
}
