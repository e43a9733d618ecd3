//! Repetitions put together.

use super::stats::median;
use crate::model::Spread;

impl Spread {
    /// Of those that are known.
    pub(crate) fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let known: Vec<f64> = values.into_iter().flatten().collect();
        (!known.is_empty()).then(|| Self {
            median: median(&known),
            low: known.iter().copied().fold(f64::INFINITY, f64::min),
            high: known.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}
