//! The figures, one per file.

pub(super) mod achieved;
pub(super) mod compared;
pub(super) mod convergence;
pub(super) mod error_map;
pub(super) mod fidelity;
pub(super) mod floor;
pub(super) mod overview;
pub(super) mod settle;
pub(super) mod slept;
pub(super) mod stalls;
pub(super) mod stalls_compared;
pub(super) mod throttle;
pub(super) mod utilisation;

use super::{
    Choice, RecordingView,
    axis::{Axis, number},
    data::{Facet, Point, Series, pick, plural, range, series, spread_note},
    page::{Key, Mark, Page},
    style,
};
use crate::{
    model::Spread,
    plot::style::{Glyph, Stroke},
};

/// Panels on one page, at most; more go to further pages.
const PANELS_A_PAGE: usize = 4;

/// Which of the two measured rates.
#[derive(Clone, Copy)]
enum Side {
    Truth,
    Reading,
}

impl Side {
    fn spread(self, point: &Point<'_>) -> Option<Spread> {
        match self {
            Self::Truth => point.truth(),
            Self::Reading => point.reading(),
        }
    }

    fn look(self, index: usize) -> (Stroke, Glyph) {
        match self {
            Self::Truth => style::truth(index),
            Self::Reading => style::reading(index),
        }
    }
}

/// The measured marks of one series: a line through the middles, the bars, the points.
fn measured(points: &[(f64, Spread)], (stroke, glyph): (Stroke, Glyph)) -> Vec<Mark> {
    let middles: Vec<_> = points.iter().map(|(x, spread)| (*x, spread.median)).collect();
    let mut marks = vec![Mark::Line {
        points: middles.clone(),
        stroke,
    }];
    marks.extend(
        points
            .iter()
            .filter(|(_, s)| s.high > s.low)
            .map(|(x, s)| Mark::Spread {
                x: *x,
                low: s.low,
                high: s.high,
                color: glyph.color,
            }),
    );
    marks.push(Mark::Points { points: middles, glyph });
    marks
}

/// What filled and open mean, for a legend.
fn side_keys() -> [Key; 2] {
    let grey = |(mut stroke, mut glyph): (Stroke, Glyph)| {
        (stroke.color, glyph.color) = (style::SOFT_INK, style::SOFT_INK);
        (stroke, glyph)
    };
    let (truth, reading) = (grey(style::truth(0)), grey(style::reading(0)));
    [
        Key::both(truth.0, truth.1, "guest's counter (truth)"),
        Key::both(reading.0, reading.1, "limiter's reading"),
    ]
}

/// One page for every few facets, all with the same header.
fn paged(facets: usize, page: impl Fn(std::ops::Range<usize>) -> Page) -> Vec<Page> {
    let starts: Vec<usize> = (0..facets).step_by(PANELS_A_PAGE).collect();
    starts
        .iter()
        .enumerate()
        .map(|(i, start)| {
            let mut page = page(*start..(start + PANELS_A_PAGE).min(facets));
            if i > 0 {
                page.suffix = format!("-{}", i + 1);
            }
            if starts.len() > 1 {
                page.title = format!("{} ({} of {})", page.title, i + 1, starts.len());
            }
            page
        })
        .collect()
}

/// Columns and the size of a panel for `panels` of them.
fn grid(panels: usize) -> (usize, (i32, i32)) {
    if panels <= 1 {
        (1, (style::WIDTH - style::MARGIN, 400))
    } else {
        (2, (500, 340))
    }
}

/// The lines under the title of a figure made from summaries.
fn subtitle(view: &RecordingView<'_>, facets: &[Facet<'_>]) -> Vec<String> {
    let points = || facets.iter().flat_map(|facet| &facet.points);
    let vcpus = points().flat_map(|p| &p.rows).map(|row| row.vcpus).max().unwrap_or(1);
    let runs = if vcpus > 1 {
        " (each vCPU of each repetition is a run)"
    } else {
        ""
    };
    vec![
        format!("{} \u{b7} {}", view.title, view.machine),
        spread_note(points()) + runs,
    ]
}

/// The different values of a number over some points, in order.
fn distinct<'a, T: Ord>(points: impl IntoIterator<Item = &'a Point<'a>>, value: impl Fn(&Point<'_>) -> T) -> Vec<T> {
    points
        .into_iter()
        .map(value)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The axis of ring sizes, a tick at every power of two.
fn ring_axis(rings: impl IntoIterator<Item = f64>) -> Axis {
    let (low, high) = range(rings).unwrap_or((1024.0, 65536.0));
    // Half a step of air, so that the outermost points don't stand on the frame.
    let ticks = (low.log2() as i32..=high.log2() as i32)
        .map(|exponent| f64::from(exponent).exp2())
        // As the flag takes them: digits alone.
        .map(|entries| (entries, format!("{entries:.0}")))
        .collect();
    Axis::log("dirty ring size (entries)", low / 1.4, high * 1.4, ticks)
}

/// The axis of quotas, a tick at every quota that was asked for where they don't crowd.
fn quota_axis(quotas: &[f64]) -> Axis {
    let (low, high) = range(quotas.iter().copied()).unwrap_or((1.0, 2.0));
    let (low, high) = (low / 1.4, high * 1.4);
    let mut ticks: Vec<(f64, String)> = Vec::new();
    let least_gap = (high / low).ln() / 13.0;
    for quota in quotas.iter().copied() {
        if ticks.last().is_none_or(|(last, _)| (quota / last).ln() >= least_gap) {
            ticks.push((quota, number(quota)));
        }
    }
    Axis::log("quota asked for (MiB/s)", low, high, ticks)
}

/// The quotas of some points, sorted, each once.
fn quotas<'a>(points: impl IntoIterator<Item = &'a Point<'a>>) -> Vec<f64> {
    let mut quotas: Vec<f64> = points
        .into_iter()
        .filter_map(Point::quota)
        .filter(|q| *q > 0.0)
        .collect();
    quotas.sort_by(f64::total_cmp);
    quotas.dedup();
    quotas
}

/// The series of at most `most` cells, with a note where there are others.
fn chosen_series<'a>(view: &RecordingView<'a>, choice: &Choice<'_>, most: usize) -> (Vec<Series<'a>>, Option<String>) {
    let cells = pick(view.samples, view.summaries, choice.cells, most);
    let all: std::collections::BTreeSet<u32> = view.samples.iter().map(|row| row.cell).collect();
    let note = (choice.cells.is_empty() && cells.len() < all.len())
        .then(|| format!("Shows {} of {} cells; others with --cell N.", cells.len(), all.len()));
    (series(view.samples, view.summaries, &cells), note)
}

/// The lines under the title of a figure over time.
fn time_subtitle(view: &RecordingView<'_>, shown: &[Series<'_>]) -> Vec<String> {
    let cells: std::collections::BTreeSet<u32> = shown.iter().map(|series| series.cell).collect();
    let mut what = format!(
        "{} {}, {}",
        plural(cells.len(), "cell"),
        super::data::spans(cells.iter().copied()),
        if cells.len() == 1 { "one run" } else { "one run each" }
    );
    let guests: std::collections::BTreeSet<&str> = shown
        .iter()
        .filter_map(|s| s.summary.map(|r| r.guest.as_deref().unwrap_or("unknown")))
        .collect();
    if let (Some(guest), 1) = (guests.first(), guests.len()) {
        what = format!("{what} \u{b7} guest {guest}");
    }
    vec![format!("{} \u{b7} {}", view.title, view.machine), what]
}
