//! How every limiter of a comparison follows the same limits: a panel each, its repetitions and their median.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Choice, Figure, RecordingView, Skip,
        axis::Axis,
        data::{Series, median, positive_range, series},
        page::{Key, Mark, Page, Panel},
        style,
    },
    convergence::quota_steps,
    grid, time_subtitle,
};
use crate::plot::style::Stroke;

pub(crate) const FIGURE: Figure = Figure {
    name: "compared",
    about: "rate over time of every limiter in a comparison, all repetitions and their median",
    pages,
};

/// Samples further apart than this are not those of a comparison.
const FINE_S: f64 = 0.05;
/// What a point is the mean of: two dozen pauses of the default length.
const BIN_S: f64 = 0.125;

/// One repetition.
const ONE: Stroke = Stroke {
    color: style::SKY,
    width: 8,
    dash: style::SOLID,
};

fn pages(view: &RecordingView<'_>, _: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    let cells: BTreeSet<u32> = view.summaries.iter().map(|row| row.cell).collect();
    let mut limiters: BTreeMap<(&str, u32), Vec<Series<'_>>> = BTreeMap::new();
    for one in series(view.samples, view.summaries, &cells) {
        let limited = one.samples.iter().any(|row| row.quota_mib_s.is_some());
        if let Some(summary) = one.summary.filter(|_| limited && is_fine(&one)) {
            limiters.entry((&summary.limiter, one.vcpu)).or_default().push(one);
        }
    }
    if limiters.keys().map(|(name, _)| name).collect::<BTreeSet<_>>().len() < 2 {
        return Err(Skip::because("it needs two limiters in one `dirtyrig compare`"));
    }
    let vcpus: BTreeSet<u32> = limiters.keys().map(|(_, vcpu)| *vcpu).collect();
    let binned: Vec<Binned> = limiters
        .iter()
        .map(|((name, vcpu), repetitions)| {
            let title = if vcpus.len() > 1 {
                format!("{name}, vCPU {vcpu}")
            } else {
                (*name).to_owned()
            };
            Binned::of(title, repetitions)
        })
        .collect();
    let shown: Vec<Series<'_>> = limiters.into_values().flatten().collect();
    let (x, y) = axes(&binned);
    let panels: Vec<Panel> = binned.iter().map(|one| one.panel(x.clone(), y.clone())).collect();
    let (columns, panel_size) = grid(panels.len());
    Ok(vec![Page {
        suffix: String::new(),
        title: "The same limits under every limiter".to_owned(),
        subtitle: time_subtitle(view, &shown),
        legend: vec![
            Key::line(style::TRUTH, "guest's counter (truth), median of the repetitions"),
            Key::line(ONE, "each repetition"),
            Key::line(style::QUOTA, "quota"),
        ],
        panels,
        columns,
        panel_size,
        notes: vec![format!("Each point is a mean over {} ms.", BIN_S * 1e3)],
    }])
}

fn is_fine(series: &Series<'_>) -> bool {
    let (from, to) = series.span();
    series.samples.len() > 1 && (to - from) / (series.samples.len() - 1) as f64 <= FINE_S
}

/// The repetitions of one limiter in bins of time.
struct Binned {
    title: String,
    quota: Vec<Vec<(f64, f64)>>,
    changes: Vec<(f64, String)>,
    repetitions: Vec<Vec<(f64, f64)>>,
    median: Vec<(f64, f64)>,
}

impl Binned {
    fn of(title: String, series: &[Series<'_>]) -> Self {
        let repetitions: Vec<BTreeMap<i64, f64>> = series.iter().map(bins).collect();
        let all: BTreeSet<i64> = repetitions.iter().flat_map(|bins| bins.keys().copied()).collect();
        let middle = |bin: i64| (bin as f64 + 0.5) * BIN_S;
        let median = all.iter().filter_map(|bin| {
            let values: Vec<f64> = repetitions.iter().filter_map(|bins| bins.get(bin)).copied().collect();
            Some((middle(*bin), median(&values)?))
        });
        Self {
            title,
            quota: quota_steps(&series[0]),
            changes: series[0].changes(),
            median: median.collect(),
            repetitions: repetitions
                .iter()
                .map(|bins| bins.iter().map(|(bin, rate)| (middle(*bin), *rate)).collect())
                .collect(),
        }
    }

    fn panel(&self, x: Axis, y: Axis) -> Panel {
        let mut marks: Vec<Mark> = self
            .changes
            .iter()
            .map(|(x, text)| Mark::Moment {
                x: *x,
                text: text.clone(),
            })
            .collect();
        let line = |points: &Vec<(f64, f64)>, stroke| Mark::Line {
            points: points.clone(),
            stroke,
        };
        marks.extend(self.repetitions.iter().map(|points| line(points, ONE)));
        marks.extend(self.quota.iter().map(|points| line(points, style::QUOTA)));
        marks.push(line(&self.median, style::TRUTH));
        Panel {
            title: self.title.clone(),
            x,
            y,
            marks,
        }
    }
}

/// The mean rate in each bin that is full, from the counts.
fn bins(series: &Series<'_>) -> BTreeMap<i64, f64> {
    let mut first: BTreeMap<i64, (f64, u64)> = BTreeMap::new();
    for row in &series.samples {
        let bin = (row.t_s / BIN_S).floor() as i64;
        if let Some(pages) = row.written_pages {
            first.entry(bin).or_insert((row.t_s, pages));
        }
    }
    let pairs = first.iter().zip(first.iter().skip(1));
    pairs
        .map(|((bin, (from, before)), (_, (to, after)))| {
            let mib = dirtyrig_limiter::units::Pages(after - before).to_mib();
            (*bin, mib / (to - from))
        })
        .collect()
}

fn axes(all: &[Binned]) -> (Axis, Axis) {
    let rates = || all.iter().flat_map(|one| &one.median).map(|(_, rate)| *rate);
    let quotas = || {
        all.iter()
            .flat_map(|one| one.quota.iter().flatten())
            .map(|(_, quota)| *quota)
    };
    let (_, top) = positive_range(rates().chain(quotas())).unwrap_or((1.0, 2.0));
    let low = quotas().fold(top, f64::min) / 4.0;
    let y = Axis::powers_of_two("dirty rate (MiB/s)", low, top, 8);
    let y = if rates().any(|rate| rate < low) {
        y.and_zero()
    } else {
        y
    };
    let times = || all.iter().flat_map(|one| &one.median).map(|(at, _)| *at);
    let (from, to) = (times().fold(0.0, f64::min), times().fold(0.0, f64::max));
    (Axis::span("time since the first limit (s)", from, to, 8), y)
}
