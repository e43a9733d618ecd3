//! The lowest rate per limiter comes down to against the size of the ring, beside what the period predicts.

use std::collections::BTreeMap;

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Facet, Periods, Point, facets, median, positive_range},
        page::{Key, Mark, Page, Panel},
        published, style,
    },
    Side, distinct, grid, measured, paged, ring_axis, side_keys, subtitle,
};

pub(crate) const FIGURE: Figure = Figure {
    name: "floor",
    about: "settled rate at the lowest quota against ring size, with the predicted floor and the published points",
    pages,
};

const PREDICTED: style::Dash = style::DOTTED;

fn pages(view: &RecordingView<'_>, _choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let limited = view.summaries.iter().filter(|row| row.quota_mib_s.is_some());
    let facets: Vec<_> = facets(limited, Periods::Together)
        .into_iter()
        .map(lowest_quotas)
        .collect();
    let all = || facets.iter().flat_map(|facet| &facet.points);
    if distinct(all(), |p| p.rows[0].ring_entries).len() < 2 {
        return Err(Skip::because("it needs limited cells of two ring sizes or more"));
    }
    let periods = distinct(all(), |p| p.rows[0].period_ms);
    let (x, y) = axes(&facets);
    Ok(paged(facets.len(), |here| {
        let here = &facets[here];
        let (columns, panel_size) = grid(here.len());
        Page {
            suffix: String::new(),
            title: "Floor: the rate at the lowest quota, by ring size".to_owned(),
            subtitle: subtitle(view, here),
            legend: legend(&periods),
            panels: here
                .iter()
                .map(|facet| Panel {
                    title: facet.label.clone(),
                    x: x.clone(),
                    y: y.clone(),
                    marks: marks(facet, &periods),
                })
                .collect(),
            columns,
            panel_size,
            notes: vec![
                "A QEMU limiter reads no less than the higher of the predicted line and the cap's line; one that holds its \
                 quota lies on the quota's line."
                    .to_owned(),
            ],
        }
    }))
}

/// Keeps of each ring and period the points with the lowest quota.
fn lowest_quotas(facet: Facet<'_>) -> Facet<'_> {
    let mut points: Vec<Point<'_>> = Vec::new();
    // Points come sorted by ring, period and quota.
    for point in facet.points {
        let known = points.iter().any(|p| {
            p.rows[0].ring_entries == point.rows[0].ring_entries && p.rows[0].period_ms == point.rows[0].period_ms
        });
        if !known {
            points.push(point);
        }
    }
    Facet { points, ..facet }
}

fn axes(facets: &[Facet<'_>]) -> (Axis, Axis) {
    let all = || facets.iter().flat_map(|facet| &facet.points);
    let published = || published::MINIMUM.iter();
    let rings = all()
        .filter_map(Point::ring)
        .chain(published().map(|p| f64::from(p.ring_entries)));
    let rates = all()
        .flat_map(|point| {
            let row = point.rows[0];
            let spreads = [point.truth(), point.reading()]
                .into_iter()
                .flatten()
                .flat_map(|s| [s.low, s.median, s.high]);
            spreads
                .chain(row.unlimited_mib_s)
                .chain(row.predicted_floor_mib_s)
                .chain(row.cap_floor_mib_s)
                .chain(point.quota())
                .collect::<Vec<_>>()
        })
        .chain(published().map(|p| p.quota_mib_s));
    let (low, high) = positive_range(rates).unwrap_or((1.0, 1024.0));
    let zero = all().any(|point| [point.truth(), point.reading()].iter().flatten().any(|s| s.low <= 0.0));
    let y = Axis::powers_of_two("settled dirty rate (MiB/s)", low.max(high / 65536.0), high * 1.1, 12);
    (ring_axis(rings), if zero { y.and_zero() } else { y })
}

fn legend(periods: &[u64]) -> Vec<Key> {
    let mut keys: Vec<Key> = side_keys().into();
    if periods.len() > 1 {
        keys.extend(periods.iter().enumerate().map(|(i, period)| {
            let (stroke, glyph) = style::truth(i);
            Key::both(stroke, glyph, format!("period {period} ms"))
        }));
    }
    let predicted = match periods {
        [period] => format!("predicted: ring bytes / {period} ms"),
        _ => "predicted: ring bytes / period".to_owned(),
    };
    let color = if periods.len() == 1 {
        style::INK
    } else {
        style::SOFT_INK
    };
    keys.extend([
        Key::line(predicted_stroke(color), predicted),
        Key::line(style::reference(style::SOFT_INK, style::LONG), "cap: 1 % of unlimited"),
        Key::line(style::reference(style::GREY, style::SOLID), "unlimited"),
        Key::line(style::QUOTA, "lowest quota asked for"),
        Key::glyph(style::PUBLISHED, published::KEY),
    ]);
    keys
}

fn predicted_stroke(color: style::Color) -> style::Stroke {
    style::Stroke {
        color,
        width: 20,
        dash: PREDICTED,
    }
}

/// Of each ring, over all periods.
fn lowest_asked(facet: &Facet<'_>) -> Vec<(f64, f64)> {
    let mut lowest: BTreeMap<u32, f64> = BTreeMap::new();
    for (row, quota) in facet.points.iter().filter_map(|p| Some((p.rows[0], p.quota()?))) {
        let Some(entries) = row.ring_entries else { continue };
        let known = lowest.entry(entries).or_insert(quota);
        *known = known.min(quota);
    }
    lowest
        .into_iter()
        .map(|(ring, quota)| (f64::from(ring), quota))
        .collect()
}

fn marks(facet: &Facet<'_>, periods: &[u64]) -> Vec<Mark> {
    let by_ring = |period: Option<u64>, value: &dyn Fn(&Point<'_>) -> Option<f64>| -> Vec<(f64, f64)> {
        let mut rings: Vec<f64> = facet.points.iter().filter_map(Point::ring).collect();
        rings.sort_by(f64::total_cmp);
        rings.dedup();
        rings
            .into_iter()
            .filter_map(|ring| {
                let values: Vec<f64> = facet
                    .points
                    .iter()
                    .filter(|p| p.ring().is_some_and(|of| of.total_cmp(&ring).is_eq()))
                    .filter(|p| period.is_none_or(|period| p.rows[0].period_ms == period))
                    .filter_map(value)
                    // The axis is logarithmic.
                    .filter(|v| *v > 0.0)
                    .collect();
                median(&values).map(|middle| (ring, middle))
            })
            .collect()
    };
    let line = |points: Vec<(f64, f64)>, stroke| Mark::Line { points, stroke };
    let mut marks = vec![
        line(
            by_ring(None, &|p| p.of(|row| row.unlimited_mib_s).map(|s| s.median)),
            style::reference(style::GREY, style::SOLID),
        ),
        line(
            by_ring(None, &|p| p.of(|row| row.cap_floor_mib_s).map(|s| s.median)),
            style::reference(style::SOFT_INK, style::LONG),
        ),
        line(lowest_asked(facet), style::QUOTA),
    ];
    for (i, period) in periods.iter().enumerate() {
        let color = if periods.len() == 1 {
            style::INK
        } else {
            style::series(i).0
        };
        let predicted = by_ring(Some(*period), &|p| {
            p.of(|row| row.predicted_floor_mib_s).map(|s| s.median)
        });
        marks.push(line(predicted, predicted_stroke(color)));
    }
    marks.push(Mark::Points {
        points: published::MINIMUM
            .iter()
            .map(|p| (f64::from(p.ring_entries), p.quota_mib_s))
            .collect(),
        glyph: style::PUBLISHED,
    });
    for side in [Side::Reading, Side::Truth] {
        for (i, period) in periods.iter().enumerate() {
            let points: Vec<_> = facet
                .points
                .iter()
                .filter(|p| p.rows[0].period_ms == *period)
                .filter_map(|p| Some((p.ring()?, side.spread(p)?)))
                .collect();
            marks.extend(measured(&points, side.look(i)));
        }
    }
    marks
}
