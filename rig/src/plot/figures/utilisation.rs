//! How much of its time a vCPU is left with at each quota.

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Facet, Periods, facets, positive_range},
        page::{Key, Mark, Page, Panel},
        published, style,
    },
    achieved::{ring_keys, ring_of, rings_of},
    grid, measured, paged, quota_axis, quotas, subtitle,
};

pub(crate) const FIGURE: Figure = Figure {
    name: "utilisation",
    about: "share of time a vCPU runs against the quota, with the published 6 % and 24 %",
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
    let mut with_published = asked.clone();
    with_published.extend(published::MINIMUM.iter().map(|p| p.quota_mib_s));
    with_published.sort_by(f64::total_cmp);
    with_published.dedup();
    let x = quota_axis(&with_published);
    let shares = all()
        .filter_map(|p| p.of(|row| row.utilisation_pct))
        .flat_map(|s| [s.low, s.median, s.high])
        .chain(published::MINIMUM.iter().map(|p| p.utilisation_pct));
    let (low, _) = positive_range(shares.clone()).unwrap_or((1.0, 100.0));
    let y = Axis::decades("vCPU utilisation (% of time in the guest)", low.max(0.05), 100.0, 12);
    let y = if shares.into_iter().any(|share| share <= 0.0) {
        y.and_zero()
    } else {
        y
    };
    let bars = all().any(|p| p.rows.len() > 1);
    Ok(paged(facets.len(), |here| {
        let here = &facets[here];
        let (columns, panel_size) = grid(here.len());
        let mut legend: Vec<Key> = ring_keys(&rings).collect();
        legend.push(Key::line(
            style::reference(style::GREY, style::LONG),
            "quota / unlimited rate",
        ));
        legend.push(Key::glyph(style::PUBLISHED, published::KEY));
        let mut subtitle = subtitle(view, here);
        if !bars {
            "n = 1 run a point".clone_into(&mut subtitle[1]);
        }
        Page {
            suffix: String::new(),
            title: "What a quota leaves of the vCPU".to_owned(),
            subtitle,
            legend,
            panels: here
                .iter()
                .map(|facet| Panel {
                    title: facet.label.clone(),
                    x: x.clone(),
                    y: y.clone(),
                    marks: marks(facet, &rings, &with_published),
                })
                .collect(),
            columns,
            panel_size,
            notes: vec![
                "Published points: 6 % at ring 4096 and quota 25, 24 % at ring 65536 and quota 256, on a host that dirties \
                 1,170 MB/s unlimited."
                    .to_owned(),
            ],
        }
    }))
}

fn marks(facet: &Facet<'_>, rings: &[Option<u32>], asked: &[f64]) -> Vec<Mark> {
    let unlimited: Vec<f64> = facet
        .points
        .iter()
        .flat_map(|p| &p.rows)
        .filter_map(|row| row.unlimited_mib_s)
        .collect();
    let mut marks = Vec::new();
    if let Some(unlimited) = super::super::data::median(&unlimited).filter(|rate| *rate > 0.0) {
        let ends = [asked[0], unlimited.clamp(asked[0], asked[asked.len() - 1])];
        marks.push(Mark::Line {
            points: ends.map(|quota| (quota, 100.0 * quota / unlimited)).to_vec(),
            stroke: style::reference(style::GREY, style::LONG),
        });
    }
    marks.push(Mark::Points {
        points: published::MINIMUM
            .iter()
            .map(|p| (p.quota_mib_s, p.utilisation_pct))
            .collect(),
        glyph: style::PUBLISHED,
    });
    for (i, ring) in rings.iter().enumerate() {
        let points: Vec<_> = facet
            .points
            .iter()
            .filter(|p| ring_of(p) == *ring)
            .filter_map(|p| Some((p.quota()?, p.of(|row| row.utilisation_pct)?)))
            .collect();
        marks.extend(measured(&points, style::truth(i)));
    }
    marks.extend(published::MINIMUM.iter().map(|p| Mark::Label {
        at: (p.quota_mib_s, p.utilisation_pct),
        text: format!("ring {}", p.ring_entries),
        color: style::INK,
    }));
    marks
}
