//! Which samples are the warm-up, the limited part and the measured part of a vCPU's cell, and what their counts say.

use dirtyrig_limiter::units::Pages;

use crate::model::Sample;

/// The mean rate (MiB/s) over the last two thirds of the warm-up, which has no quota and ends at 0: a guest that just
/// started is not yet at its speed.
pub(super) fn unlimited_rate(samples: &[&Sample]) -> Option<f64> {
    let count = samples
        .iter()
        .take_while(|row| row.t_s <= 0.0 && row.quota_mib_s.is_none())
        .count();
    let warm_up = &samples[..count];
    let third_s = warm_up.first()?.t_s * 2.0 / 3.0;
    let first = warm_up.iter().rfind(|row| row.t_s <= third_s)?;
    let last = warm_up.last()?;
    let span_s = last.t_s - first.t_s;
    let pages = last.written_pages?.saturating_sub(first.written_pages?);
    (span_s > 0.0).then(|| Pages(pages).to_mib() / span_s)
}

/// Consecutive samples, and the one before them, from which their counts are taken.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) start_s: f64,
    pub(super) base: Option<&'a Sample>,
    pub(super) rows: &'a [&'a Sample],
}

impl<'a> Part<'a> {
    /// The samples after the last change of the vCPU's quota or that of all together, and after the warm-up.
    pub(super) fn limited(samples: &'a [&'a Sample]) -> Self {
        let limits = |row: &Sample| (row.quota_mib_s, row.vm_quota_mib_s);
        let last = samples.last().map(|row| limits(row));
        let before = samples
            .iter()
            .rposition(|row| row.t_s <= 0.0 || Some(limits(row)) != last)
            .map_or(0, |index| index + 1);
        let base = before.checked_sub(1).map(|index| samples[index]);
        Self {
            start_s: base.map_or(0.0, |row| row.t_s.max(0.0)),
            base,
            rows: &samples[before..],
        }
    }

    /// What remains from the last sample at or before `from_s` on.
    pub(super) fn from(self, from_s: f64) -> Self {
        // A time that was computed another way than the sample's may differ in its last digits.
        let before = self.rows.iter().take_while(|row| row.t_s <= from_s + 1e-6).count();
        match before.checked_sub(1) {
            Some(base) => Self {
                start_s: self.rows[base].t_s,
                base: Some(self.rows[base]),
                rows: &self.rows[before..],
            },
            None => self,
        }
    }

    /// The same without its first `lag_s` seconds, if that leaves anything; else all of it.
    pub(super) fn later(self, lag_s: f64) -> Self {
        let later = self.from(self.start_s + lag_s);
        if later.rows.is_empty() { self } else { later }
    }

    /// Its length.
    pub(super) fn span_s(&self) -> f64 {
        self.rows.last().map_or(0.0, |row| row.t_s - self.start_s)
    }

    /// By how much a count grew over it; `None` where it is not known, or nothing was sampled.
    pub(super) fn gain(&self, count: fn(&Sample) -> Option<u64>) -> Option<u64> {
        // Without a row before it the part begins with the cell, where every count is 0.
        let before = self.base.map_or(Some(0), count)?;
        self.rows
            .last()
            .and_then(|&row| count(row))
            .map(|now| now.saturating_sub(before))
    }

    /// The same per second; `None` of no time too.
    pub(super) fn gain_per_s(&self, count: fn(&Sample) -> Option<u64>) -> Option<f64> {
        let span_s = self.span_s();
        self.gain(count)
            .filter(|_| span_s > 0.0)
            .map(|gain| gain as f64 / span_s)
    }

    /// A count of pages as a rate in MiB/s.
    pub(super) fn rate(&self, pages: fn(&Sample) -> Option<u64>) -> Option<f64> {
        self.gain_per_s(pages).map(|pages_s| pages_s * Pages(1).to_mib())
    }

    /// The mean over time of a value that holds from the previous sample to its own, over the time for which it is known;
    /// `None` where there is none.
    pub(super) fn mean(&self, value: fn(&Sample) -> Option<f64>) -> Option<f64> {
        let (mut at_s, mut area, mut span_s) = (self.start_s, 0.0, 0.0);
        for row in self.rows {
            if let Some(value) = value(row) {
                area += value * (row.t_s - at_s);
                span_s += row.t_s - at_s;
            }
            at_s = row.t_s;
        }
        (span_s > 0.0).then(|| area / span_s)
    }
}
