//! The rate that came of each quota.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Facet, Periods, facets, positive_range, ring_words, verdict_mark, verdict_words},
        page::{Key, Mark, Page, Panel},
        style,
    },
    Side, distinct, grid, measured, paged, quota_axis, quotas, side_keys, subtitle,
};
use crate::model::Verdict;

pub(crate) const FIGURE: Figure = Figure {
    name: "achieved",
    about: "settled rate against the quota asked for, by ring, with the verdicts",
    pages,
};

fn pages(view: &RecordingView<'_>, _choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let facets = facets(
        view.summaries.iter().filter(|row| row.quota_mib_s.is_some()),
        Periods::Apart,
    );
    let all = || facets.iter().flat_map(|facet| &facet.points);
    let asked = quotas(all());
    if asked.len() < 2 {
        return Err(Skip::because("it needs cells of two quotas or more"));
    }
    let rings = rings_of(&facets);
    let x = quota_axis(&asked);
    let rates = all().flat_map(|p| {
        let spreads = [p.truth(), p.reading()];
        spreads.into_iter().flatten().flat_map(|s| [s.low, s.median, s.high])
    });
    let (low, high) = positive_range(rates.chain(asked.iter().copied())).unwrap_or((1.0, 2.0));
    let zero = all().any(|p| [p.truth(), p.reading()].iter().flatten().any(|s| s.low <= 0.0));
    let y = Axis::powers_of_two("settled dirty rate (MiB/s)", low.max(high / 65536.0), high, 12);
    let y = if zero { y.and_zero() } else { y };
    Ok(paged(facets.len(), |here| {
        let here = &facets[here];
        let (columns, panel_size) = grid(here.len());
        let mut legend: Vec<Key> = side_keys().into();
        legend.extend(ring_keys(&rings));
        legend.push(Key::line(
            style::reference(style::GREY, style::SOLID),
            "achieved = asked",
        ));
        Page {
            suffix: String::new(),
            title: "Achieved against asked".to_owned(),
            subtitle: subtitle(view, here),
            legend,
            panels: here
                .iter()
                .map(|facet| Panel {
                    title: facet.label.clone(),
                    x: x.clone(),
                    y: y.clone(),
                    marks: marks(facet, &rings, (asked[0], asked[asked.len() - 1])),
                })
                .collect(),
            columns,
            panel_size,
            notes: verdict_note(here).into_iter().collect(),
        }
    }))
}

/// The ring sizes, each a series.
pub(super) fn rings_of(facets: &[Facet<'_>]) -> Vec<Option<u32>> {
    distinct(facets.iter().flat_map(|facet| &facet.points), ring_of)
}

pub(super) fn ring_of(point: &super::Point<'_>) -> Option<u32> {
    point.rows[0].ring_entries
}

pub(super) fn ring_keys(rings: &[Option<u32>]) -> impl Iterator<Item = Key> {
    rings.iter().enumerate().map(|(i, ring)| {
        let (stroke, glyph) = style::truth(i);
        Key::both(stroke, glyph, ring_words(*ring))
    })
}

fn marks(facet: &Facet<'_>, rings: &[Option<u32>], (low, high): (f64, f64)) -> Vec<Mark> {
    let mut marks = vec![Mark::Line {
        points: vec![(low, low), (high, high)],
        stroke: style::reference(style::GREY, style::SOLID),
    }];
    for side in [Side::Reading, Side::Truth] {
        for (i, ring) in rings.iter().enumerate() {
            let points: Vec<_> = facet
                .points
                .iter()
                .filter(|p| ring_of(p) == *ring)
                .filter_map(|p| Some((p.quota()?, side.spread(p)?)))
                .collect();
            marks.extend(measured(&points, side.look(i)));
        }
    }
    for (i, ring) in rings.iter().enumerate() {
        marks.extend(facet.points.iter().filter(|p| ring_of(p) == *ring).filter_map(|p| {
            let text = verdict_mark(p.verdict());
            (!text.is_empty()).then_some(Mark::Label {
                at: (p.quota()?, p.truth()?.median),
                text: text.to_owned(),
                color: style::series(i).0,
            })
        }));
    }
    marks
}

/// What the letters beside the points mean, of those that occur.
pub(super) fn verdict_note(facets: &[Facet<'_>]) -> Option<String> {
    let all = [
        Verdict::FloorBound,
        Verdict::ToleranceBound,
        Verdict::CapBound,
        Verdict::Missed,
        Verdict::Oscillating,
        Verdict::NotSettled,
        Verdict::GuestTooSlow,
        Verdict::Unlimited,
    ];
    let met: Vec<String> = all
        .into_iter()
        .filter(|verdict| facets.iter().flat_map(|f| &f.points).any(|p| p.verdict() == *verdict))
        .map(|verdict| format!("{} {}", verdict_mark(verdict), verdict_words(verdict)))
        .collect();
    (!met.is_empty()).then(|| format!("Verdicts: {}; without a letter: held.", met.join(", ")))
}
