//! How steady a rate is, and how it got there.

use super::stats::{self, Interval};

/// The steady part of a rate, by its values under [`windows`](super::windows).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steady {
    /// Mean of the values.
    pub mean: f64,
    /// Median of the values.
    pub median: f64,
    /// Standard deviation of the values.
    pub sd: f64,
    /// 95 % confidence interval of the mean, allowing for autocorrelation: [`stats::mean_interval`].
    pub interval: Interval,
}

impl Steady {
    /// Describes `values`; all `NaN` but the deviation, which is 0, for none.
    pub fn of(values: &[f64]) -> Self {
        Self {
            mean: stats::mean(values),
            median: stats::median(values),
            sd: stats::sd(values),
            interval: stats::mean_interval(values),
        }
    }

    /// Oscillation: `100 sd / mean`; 0 where the mean is 0.
    pub fn oscillation_pct(&self) -> f64 {
        if self.mean > 0.0 {
            100.0 * self.sd / self.mean
        } else {
            0.0
        }
    }
}

/// Overshoot, in percent of the settled `level`: how far the values of the `transient` went past the level in the
/// direction in which the limit drove the rate, from the rate it had `before`.
///
/// Down: `100 (level - min) / level`. Up: `100 (max - level) / level`. 0 where nothing went past it, where there was no
/// transient, and where the level is 0.
pub fn overshoot_pct(transient: &[f64], before: f64, level: f64) -> f64 {
    let past = transient
        .iter()
        .map(|rate| if before >= level { level - rate } else { rate - level })
        .fold(0.0, f64::max);
    if level > 0.0 { 100.0 * past / level } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oscillation_is_the_deviation_as_a_share_of_the_mean() {
        let steady = Steady::of(&[90.0, 110.0, 90.0, 110.0]);
        assert!((steady.oscillation_pct() - 11.547).abs() < 1e-3);
        assert!((steady.median - 100.0).abs() < 1e-9);
        assert!(Steady::of(&[0.0, 0.0]).oscillation_pct() == 0.0);
    }

    #[test]
    fn overshoot_counts_only_what_goes_past_the_level_in_the_direction_of_the_step() {
        let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        // From 1700 down to 100, touching 60 on the way.
        is(overshoot_pct(&[1700.0, 60.0, 120.0], 1700.0, 100.0), 40.0);
        // From 25 up to 100, touching 150.
        is(overshoot_pct(&[25.0, 150.0, 90.0], 25.0, 100.0), 50.0);
        // Comes down without going past.
        is(overshoot_pct(&[400.0, 200.0, 110.0], 1700.0, 100.0), 0.0);
        is(overshoot_pct(&[], 1700.0, 100.0), 0.0);
    }
}
