//! The pauses of a vCPU, summed up.

use std::time::Duration;

use super::stats;
use crate::model::Stall;

/// The pauses of the measured part, sorted, in microseconds.
pub(super) struct Pauses {
    lengths: Vec<f64>,
    latenesses: Vec<f64>,
}

impl Pauses {
    /// Those that began at `from_s` or later.
    pub(super) fn of<'a>(stalls: impl Iterator<Item = &'a Stall>, from_s: f64) -> Self {
        let (mut lengths, mut latenesses) = (Vec::new(), Vec::new());
        let micros = |span: Duration| span.as_secs_f64() * 1e6;
        for stall in stalls.filter(|stall| stall.at.as_secs_f64() >= from_s) {
            lengths.push(micros(stall.length));
            if !stall.asked.is_zero() {
                latenesses.push(micros(stall.slept) - micros(stall.asked));
            }
        }
        lengths.sort_unstable_by(f64::total_cmp);
        latenesses.sort_unstable_by(f64::total_cmp);
        Self { lengths, latenesses }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// The percentile `q` of the lengths; `None` where there was none.
    pub(super) fn length(&self, q: f64) -> Option<f64> {
        stats::percentile(&self.lengths, q)
    }

    /// The percentile `q` of slept minus asked, of the pauses that were asked for; `None` where there was none.
    pub(super) fn lateness(&self, q: f64) -> Option<f64> {
        stats::percentile(&self.latenesses, q)
    }
}
