//! Our law of a QEMU beside that QEMU itself: the same cells on both VMMs.

use std::collections::BTreeMap;

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::{Axis, number},
        data::{Exact, Facet, Point, positive_range},
        page::{Key, Mark, Page, Panel},
        style,
    },
    Side, grid, measured, paged, quota_axis, quotas, side_keys, subtitle,
};
use crate::model::Summary;

pub(crate) const FIGURE: Figure = Figure {
    name: "fidelity",
    about: "the rig's law of a QEMU and that QEMU itself on the same quotas, and how far apart they are",
    pages,
};

/// Name of the rig's own VM.
const RIG: &str = "rig";

/// One limiter on one ring: the curve of each VMM, by quota.
struct Pair<'a> {
    limiter: &'a str,
    ring: u32,
    curves: BTreeMap<&'a str, Vec<Point<'a>>>,
}

fn pages(view: &RecordingView<'_>, _choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let pairs = pairs(view.summaries);
    if pairs.is_empty() {
        return Err(Skip::because(
            "it needs the same cells on the rig and on QEMU (`--vmm rig,qemu`)",
        ));
    }
    let all = || pairs.iter().flat_map(|pair| pair.curves.values().flatten());
    let asked = quotas(all());
    let rates = all().flat_map(|point| {
        let spreads = [point.truth(), point.reading()];
        spreads.into_iter().flatten().flat_map(|s| [s.low, s.median, s.high])
    });
    let (low, high) = positive_range(rates.chain(asked.iter().copied())).unwrap_or((1.0, 2.0));
    let x = quota_axis(&asked);
    let y = Axis::powers_of_two("settled dirty rate (MiB/s)", low.max(high / 65536.0), high, 12);
    let vmms = vmms(&pairs);
    Ok(paged(pairs.len(), |here| {
        let here = &pairs[here];
        let (columns, panel_size) = grid(here.len());
        let mut legend: Vec<Key> = side_keys().into();
        legend.extend(vmms.iter().enumerate().map(|(index, vmm)| {
            let (stroke, glyph) = style::truth(index);
            Key::both(stroke, glyph, (*vmm).to_owned())
        }));
        legend.push(Key::line(
            style::reference(style::GREY, style::SOLID),
            "achieved = asked",
        ));
        Page {
            suffix: String::new(),
            title: "The rig's law and QEMU itself".to_owned(),
            subtitle: subtitle(view, &shown(here)),
            legend,
            panels: here
                .iter()
                .map(|pair| Panel {
                    title: format!("{}, ring {}", pair.limiter, pair.ring),
                    x: x.clone(),
                    y: y.clone(),
                    marks: marks(pair, &vmms, &asked),
                })
                .collect(),
            columns,
            panel_size,
            notes: here.iter().flat_map(distances).collect(),
        }
    }))
}

/// The limiters and rings that were measured on the rig and on another VMM.
fn pairs(summaries: &[Summary]) -> Vec<Pair<'_>> {
    let mut groups: BTreeMap<_, BTreeMap<_, BTreeMap<_, Vec<&Summary>>>> = BTreeMap::new();
    for row in summaries {
        if let Some((quota, ring)) = row.quota_mib_s.zip(row.ring_entries) {
            let curves = groups.entry((row.limiter.as_str(), ring)).or_default();
            let points = curves.entry(row.vmm.as_str()).or_default();
            points.entry(Exact(quota)).or_default().push(row);
        }
    }
    groups
        .into_iter()
        .filter(|(_, curves)| curves.contains_key(RIG) && curves.len() > 1)
        .map(|((limiter, ring), curves)| Pair {
            limiter,
            ring,
            curves: curves
                .into_iter()
                .map(|(vmm, points)| (vmm, points.into_values().map(|rows| Point { rows }).collect()))
                .collect(),
        })
        .collect()
}

/// Every VMM, the rig first.
fn vmms<'a>(pairs: &[Pair<'a>]) -> Vec<&'a str> {
    let others: std::collections::BTreeSet<&str> = pairs
        .iter()
        .flat_map(|pair| pair.curves.keys().copied())
        .filter(|vmm| *vmm != RIG)
        .collect();
    [RIG].into_iter().chain(others).collect()
}

/// The points as the subtitle wants them.
fn shown<'a>(pairs: &[Pair<'a>]) -> Vec<Facet<'a>> {
    let points = pairs.iter().flat_map(|pair| pair.curves.values().flatten());
    vec![Facet {
        label: String::new(),
        points: points
            .map(|point| Point {
                rows: point.rows.clone(),
            })
            .collect(),
    }]
}

fn marks(pair: &Pair<'_>, vmms: &[&str], asked: &[f64]) -> Vec<Mark> {
    let (low, high) = (asked[0], asked[asked.len() - 1]);
    let mut marks = vec![Mark::Line {
        points: vec![(low, low), (high, high)],
        stroke: style::reference(style::GREY, style::SOLID),
    }];
    for side in [Side::Reading, Side::Truth] {
        for (index, vmm) in vmms.iter().enumerate() {
            let points = pair.curves.get(vmm).into_iter().flatten();
            let points: Vec<_> = points.filter_map(|p| Some((p.quota()?, side.spread(p)?))).collect();
            marks.extend(measured(&points, side.look(index)));
        }
    }
    marks
}

/// For each other VMM, where it is furthest from the rig.
fn distances(pair: &Pair<'_>) -> Vec<String> {
    let rig = &pair.curves[RIG];
    let others = pair.curves.iter().filter(|(vmm, _)| **vmm != RIG);
    others
        .map(|(vmm, points)| {
            let truth = furthest(rig, points, Side::Truth);
            let reading = furthest(rig, points, Side::Reading);
            format!(
                "{}, ring {}: {vmm} is furthest from the rig by truth {truth}, by reading {reading}.",
                pair.limiter, pair.ring
            )
        })
        .collect()
}

/// The largest distance of the other's middles from the rig's, in words.
fn furthest(rig: &[Point<'_>], other: &[Point<'_>], side: Side) -> String {
    let distances = rig.iter().filter_map(|ours| {
        let quota = ours.quota()?;
        let theirs = other.iter().find(|point| point.quota() == Some(quota))?;
        let (ours, theirs) = (side.spread(ours)?.median, side.spread(theirs)?.median);
        Some((quota, ours - theirs, theirs))
    });
    distances
        .max_by(|(_, a, _), (_, b, _)| a.abs().total_cmp(&b.abs()))
        .map_or_else(
            || "at no quota that both have".to_owned(),
            |(quota, distance, theirs)| {
                format!(
                    "at {} MiB/s ({}{} MiB/s, {:.0} %)",
                    number(quota),
                    if distance < 0.0 { "-" } else { "+" },
                    number((distance.abs() * 10.0).round() / 10.0),
                    100.0 * distance.abs() / theirs.max(f64::MIN_POSITIVE)
                )
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(vmm: &str, quota: f64, guest: f64, read: f64) -> Summary {
        Summary {
            vmm: vmm.to_owned(),
            limiter: "qemu-10".to_owned(),
            ring_entries: Some(4096),
            quota_mib_s: Some(quota),
            guest_mib_s: Some(guest),
            ring_median_mib_s: Some(read),
            ..Summary::default()
        }
    }

    #[test]
    fn what_ran_on_one_vmm_alone_is_no_pair() {
        assert!(pairs(&[row("rig", 25.0, 30.0, 30.0)]).is_empty());
        assert!(
            pairs(&[
                row("qemu-10.0.2", 25.0, 30.0, 30.0),
                row("qemu-7.2.22", 25.0, 30.0, 30.0)
            ])
            .is_empty()
        );
    }

    #[test]
    fn the_distance_is_that_of_the_worst_quota() {
        let rows = [
            row("rig", 25.0, 33.0, 35.0),
            row("qemu-10.0.2", 25.0, 32.0, 35.0),
            row("rig", 500.0, 450.0, 490.0),
            row("qemu-10.0.2", 500.0, 500.0, 493.0),
        ];
        let pairs = pairs(&rows);
        assert_eq!(
            distances(&pairs[0]),
            [
                "qemu-10, ring 4096: qemu-10.0.2 is furthest from the rig by truth at 500 MiB/s (-50 MiB/s, 10 %), by \
              reading at 500 MiB/s (-3 MiB/s, 1 %)."
            ]
        );
    }
}
