//! How long stalls are, up to the rarest: percentile curves as `HdrHistogram`'s own plots draw them.

use std::{cmp::Reverse, collections::BTreeMap};

use hdrhistogram::Histogram;

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::{Axis, number},
        data::{Exact, conditions, merge, positive_range},
        page::{Key, Mark, Page, Panel},
        style,
    },
    grid,
};
use crate::plot::style::Stroke;

pub(crate) const FIGURE: Figure = Figure {
    name: "stalls",
    about: "length of stalls by percentile, several curves on one axis",
    pages,
};

/// Curves on one panel, as many as there are colours and dashes that stay apart.
pub(super) const CURVES: usize = 6;
const STEPS_A_DECADE: i32 = 40;

/// The stalls of all repetitions of the same settings.
pub(super) struct Curve {
    pub(super) label: String,
    pub(super) lengths: Histogram<u64>,
}

fn pages(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let curves: Vec<Curve> = curves(view, choice.cells).into_values().collect();
    if curves.is_empty() {
        return Err(Skip::because("no stalls were recorded"));
    }
    // The hardest settings, unless cells were chosen: the lowest quotas on the largest rings, limiters side by side.
    let shown = if choice.cells.is_empty() {
        curves.len().min(CURVES)
    } else {
        curves.len()
    };
    let pages: Vec<_> = curves[..shown].chunks(CURVES).collect();
    let note =
        (shown < curves.len()).then(|| format!("Shows {shown} of {} settings; others with --cell N.", curves.len()));
    Ok(pages
        .iter()
        .enumerate()
        .map(|(i, curves)| page(view, curves, (i, pages.len()), note.clone()))
        .collect())
}

/// What tells curves apart, the hardest settings first: quota, ring, limiter, period, guest, vCPUs.
pub(super) type Of<'a> = (Exact, Reverse<Option<u32>>, &'a str, u64, Option<&'a str>, u32);

/// The curve of each combination of settings.
pub(super) fn curves<'a>(view: &RecordingView<'a>, cells: &[u32]) -> BTreeMap<Of<'a>, Curve> {
    let mut groups: BTreeMap<Of<'a>, Curve> = BTreeMap::new();
    for stalls in view
        .stalls
        .iter()
        .filter(|stalls| cells.is_empty() || cells.contains(&stalls.cell))
    {
        let Some(row) = view.summaries.iter().find(|row| row.cell == stalls.cell) else {
            continue;
        };
        let quota = row.quota_mib_s.unwrap_or(f64::INFINITY);
        let key = (
            Exact(quota),
            Reverse(row.ring_entries),
            row.limiter.as_str(),
            row.period_ms,
            row.guest.as_deref(),
            row.vcpus,
        );
        groups
            .entry(key)
            .and_modify(|curve| merge(&mut curve.lengths, &stalls.lengths))
            .or_insert_with(|| Curve {
                label: conditions(row),
                lengths: stalls.lengths.clone(),
            });
    }
    groups.retain(|_, curve| curve.lengths.len() > 1);
    groups
}

pub(super) fn page(
    view: &RecordingView<'_>,
    curves: &[Curve],
    (index, of): (usize, usize),
    note: Option<String>,
) -> Page {
    let (columns, panel_size) = grid(1);
    let most = curves.iter().map(|c| c.lengths.len()).max().unwrap_or(1);
    let decades = (most as f64).log10().ceil().clamp(1.0, 7.0) as i32;
    let lengths = curves
        .iter()
        .flat_map(|c| [c.lengths.min(), c.lengths.max()])
        .map(|ns| ns as f64 / 1e6);
    let (low, high) = positive_range(lengths).unwrap_or((0.1, 1.0));
    let ticks = (0..=decades)
        .map(|decade| {
            let percentile = 100.0 - 100.0 / 10f64.powi(decade);
            let places = (decade - 2).max(0) as usize;
            (10f64.powi(decade), format!("{percentile:.places$} %"))
        })
        .collect();
    let stroke = |i: usize| Stroke {
        color: style::series(i).0,
        width: 20,
        dash: [style::SOLID, style::DASHED, style::DOTTED, style::LONG][i % 4],
    };
    Page {
        suffix: if index > 0 {
            format!("-{}", index + 1)
        } else {
            String::new()
        },
        title: if of > 1 {
            format!("Length of stalls by percentile ({} of {of})", index + 1)
        } else {
            "Length of stalls by percentile".to_owned()
        },
        subtitle: vec![
            format!("{} \u{b7} {}", view.title, view.machine),
            "stall: ring-full exit to next guest entry; n: stalls of each curve".to_owned(),
        ],
        legend: curves
            .iter()
            .enumerate()
            .map(|(i, c)| {
                Key::line(
                    stroke(i),
                    format!("{} (n = {})", c.label, number(c.lengths.len() as f64)),
                )
            })
            .collect(),
        panels: vec![Panel {
            title: String::new(),
            x: Axis::log("percentile", 1.0, 10f64.powi(decades), ticks),
            y: Axis::decades("stall (ms)", low.max(high / 1e8), high, 12),
            marks: curves
                .iter()
                .enumerate()
                .map(|(i, c)| Mark::Line {
                    points: curve(c, decades),
                    stroke: stroke(i),
                })
                .collect(),
        }],
        columns,
        panel_size,
        notes: note.into_iter().collect(),
    }
}

/// Points at 1 / (1 - percentile), as far as the number of stalls supports.
fn curve(stalls: &Curve, decades: i32) -> Vec<(f64, f64)> {
    let furthest = stalls.lengths.len() as f64;
    (0..=decades * STEPS_A_DECADE)
        .map(|step| 10f64.powf(f64::from(step) / f64::from(STEPS_A_DECADE)))
        .take_while(|x| *x <= furthest)
        .chain(std::iter::once(furthest.min(10f64.powi(decades))))
        .map(|x| (x, stalls.lengths.value_at_quantile(1.0 - 1.0 / x) as f64 / 1e6))
        .collect()
}
