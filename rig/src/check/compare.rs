//! The comparison itself: rows of two recordings in, one verdict a cell and metric out. Pure.
//!
//! The unit of replication is the repetition: a run's percentile is one value, however many pauses it had, because the
//! pauses of one run have more in common than those of two.
//!
//! | verdict | condition |
//! |---|---|
//! | regressed, improved | the corrected p value of the rank test is at most [`ALPHA`], and the medians lie at least the metric's least change apart |
//! | same | there are enough repetitions that a change could have been found, and the whole confidence interval lies within the least change: one that matters is ruled out |
//! | can't tell | neither: with how many repetitions it could be told |

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    bootstrap,
    cell::Cell,
    correct,
    metric::{Better, METRICS, Metric},
    power, rank,
};
use crate::{
    analysis::stats::{Interval, median},
    model::Summary,
};

/// How often a check of an unchanged candidate may flag anything at all. One in a hundred: a gate runs often, and one that
/// cries wolf is switched off.
pub const ALPHA: f64 = 0.01;

/// What is said of a cell's metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It got worse.
    Regressed,
    /// It got better.
    Improved,
    /// Neither one can be shown nor ruled out.
    CantTell,
    /// No change that matters.
    Same,
}

impl Verdict {
    /// As people and JSON write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::CantTell => "can't tell",
            Self::Same => "same",
        }
    }
}

/// The values of one side.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// One a repetition.
    pub values: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// One cell's metric on both sides.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The cell.
    pub cell: Cell,
    /// The metric.
    pub metric: &'static Metric,
    /// What it was.
    pub baseline: Side,
    /// What it is.
    pub candidate: Side,
    /// For how long the candidate's repetitions were measured, together.
    pub measured_s: f64,
    /// Change of the median, in the metric's unit.
    pub change: f64,
    /// Its 95 % confidence interval.
    pub interval: Interval,
    /// The least change that matters, in the metric's unit.
    pub least: f64,
    /// The p value of the rank test.
    pub p: f64,
    /// The same, corrected for all comparisons of the check.
    pub p_corrected: f64,
    /// What is said.
    pub verdict: Verdict,
    /// Repetitions a side with which it could be told, where it can't.
    pub needed: Option<usize>,
}

impl Comparison {
    /// A change as a percentage of the baseline; none of a baseline of 0.
    pub fn pct(&self, change: f64) -> Option<f64> {
        (self.baseline.median > 0.0).then(|| 100.0 * change / self.baseline.median)
    }
}

/// Compares what is in both, in the order of cells and metrics.
pub fn compare(baseline: &[Summary], candidate: &[Summary]) -> Vec<Comparison> {
    let (before, after) = (by_cell(baseline), by_cell(candidate));
    let mut comparisons: Vec<Comparison> = before
        .iter()
        .filter_map(|(cell, old)| Some((cell, old, after.get(cell)?)))
        .flat_map(|(cell, old, new)| {
            METRICS
                .iter()
                .filter_map(move |metric| measured(cell, metric, old, new))
        })
        .collect();
    // What is the same value throughout can't be flagged, and is no comparison that the others must be corrected for.
    let p_values: Vec<f64> = comparisons
        .iter()
        .filter(|one| !one.is_constant())
        .map(|one| one.p)
        .collect();
    let family = p_values.len();
    let mut corrected = correct::adjusted(&p_values).into_iter();
    for one in &mut comparisons {
        one.p_corrected = if one.is_constant() {
            1.0
        } else {
            corrected.next().unwrap_or(1.0)
        };
        one.judge(family);
    }
    comparisons
}

fn by_cell(rows: &[Summary]) -> BTreeMap<Cell, Vec<&Summary>> {
    let mut cells: BTreeMap<Cell, Vec<&Summary>> = BTreeMap::new();
    for row in rows {
        cells.entry(Cell::of(row)).or_default().push(row);
    }
    cells
}

fn measured(cell: &Cell, metric: &'static Metric, old: &[&Summary], new: &[&Summary]) -> Option<Comparison> {
    let side = |rows: &[&Summary]| {
        let values: Vec<f64> = rows.iter().filter_map(|row| (metric.value)(row)).collect();
        (!values.is_empty()).then(|| Side {
            median: median(&values),
            values,
        })
    };
    let (baseline, candidate) = (side(old)?, side(new)?);
    Some(Comparison {
        cell: cell.clone(),
        metric,
        measured_s: new.iter().map(|row| row.measured_s).sum(),
        change: candidate.median - baseline.median,
        interval: bootstrap::median_change(&baseline.values, &candidate.values),
        least: metric.least_from(baseline.median),
        p: rank::p_value(&baseline.values, &candidate.values),
        p_corrected: 1.0,
        verdict: Verdict::CantTell,
        needed: None,
        baseline,
        candidate,
    })
}

impl Comparison {
    /// Whether every repetition of either side has the same value.
    fn is_constant(&self) -> bool {
        let first = self.baseline.values[0].to_bits();
        let mut all = self.baseline.values.iter().chain(&self.candidate.values);
        all.all(|value| value.to_bits() == first)
    }

    /// Gives the verdict; `family` comparisons were corrected for.
    fn judge(&mut self, family: usize) {
        let (old, new) = (self.baseline.values.len(), self.candidate.values.len());
        // What it takes to flag this one if it were the only one that changed.
        let p_alone = ALPHA / family.max(1) as f64;
        let able = rank::least_p(old, new) <= p_alone;
        let within = self.interval.low > -self.least && self.interval.high < self.least;
        self.verdict = if self.p_corrected <= ALPHA && self.change.abs() >= self.least {
            let worse = (self.change > 0.0) == (self.metric.better == Better::Lower);
            if worse { Verdict::Regressed } else { Verdict::Improved }
        } else if able && (within || self.is_constant()) {
            Verdict::Same
        } else {
            Verdict::CantTell
        };
        self.needed = (self.verdict == Verdict::CantTell)
            .then(|| power::repetitions(&self.baseline.values, &self.candidate.values, self.least, p_alone));
    }
}

#[cfg(test)]
mod tests;
