//! How long each quota took to settle.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Facet, Periods, facets, range},
        page::{Key, Mark, Page, Panel},
        style,
    },
    achieved::{ring_keys, ring_of, rings_of},
    grid, measured, paged, quota_axis, quotas, subtitle,
};
use crate::plot::style::{Glyph, Shape};

pub(crate) const FIGURE: Figure = Figure {
    name: "settle",
    about: "settle time against quota, by ring, with the cells that never settled",
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
    let times = all().flat_map(|p| &p.rows).filter_map(|row| row.settle_s);
    let Some((_, longest)) = range(times) else {
        return Err(Skip::because("no cell settled"));
    };
    let never = all().flat_map(|p| &p.rows).any(|row| row.settle_s.is_none());
    let rings = rings_of(&facets);
    let x = quota_axis(&asked);
    // Those that never settled stand on a line of their own above the others.
    let y = Axis::linear("settle time (s)", 0.0, longest * if never { 1.15 } else { 1.02 }, 8);
    Ok(paged(facets.len(), |here| {
        let here = &facets[here];
        let (columns, panel_size) = grid(here.len());
        let mut legend: Vec<Key> = ring_keys(&rings).collect();
        if never {
            legend.push(Key::glyph(not_settled(style::SOFT_INK), "did not settle (at the top)"));
        }
        let mut subtitle = subtitle(view, here);
        if here.iter().flat_map(|f| &f.points).all(|p| p.rows.len() == 1) {
            "n = 1 run a point".clone_into(&mut subtitle[1]);
        }
        Page {
            suffix: String::new(),
            title: "Settle time against quota".to_owned(),
            subtitle,
            legend,
            panels: here
                .iter()
                .map(|facet| Panel {
                    title: facet.label.clone(),
                    x: x.clone(),
                    y: y.clone(),
                    marks: marks(facet, &rings, &x, y.high()),
                })
                .collect(),
            columns,
            panel_size,
            notes: Vec::new(),
        }
    }))
}

fn not_settled(color: style::Color) -> Glyph {
    Glyph {
        shape: Shape::Cross,
        filled: true,
        color,
    }
}

fn marks(facet: &Facet<'_>, rings: &[Option<u32>], x: &Axis, top: f64) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut at_top: Vec<f64> = Vec::new();
    // Series that share a quota stand beside each other.
    let step = (x.high() / x.low()).powf(0.022);
    for (i, ring) in rings.iter().enumerate() {
        let here = || facet.points.iter().filter(|p| ring_of(p) == *ring);
        let settled: Vec<_> = here()
            .filter_map(|p| Some((p.quota()?, p.of(|row| row.settle_s)?)))
            .collect();
        marks.extend(measured(&settled, style::truth(i)));
        for quota in here()
            .filter(|p| p.rows.iter().any(|row| row.settle_s.is_none()))
            .filter_map(super::Point::quota)
        {
            let others = at_top.iter().filter(|q| q.total_cmp(&quota).is_eq()).count();
            at_top.push(quota);
            marks.push(Mark::Points {
                points: vec![(quota * step.powi(others as i32), top * 0.97)],
                glyph: not_settled(style::series(i).0),
            });
        }
    }
    marks
}
