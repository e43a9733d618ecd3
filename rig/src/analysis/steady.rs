//! How steady a rate is, and how it got there.

use super::stats::{self, Interval};

/// The steady part of a rate, by its values under [`windows`](super::windows).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steady {
    /// Mean of the values.
    pub mean: f64,
    /// Median of the values.
    pub median: f64,
    /// Standard deviation of the values; `None` of a single one.
    pub sd: Option<f64>,
    /// 95 % confidence interval of the mean, allowing for autocorrelation: [`stats::mean_interval`]; `None` of a single
    /// value.
    pub interval: Option<Interval>,
}

impl Steady {
    /// Describes `values`; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            mean: stats::mean(values),
            median: stats::median(values),
            sd: (values.len() > 1).then(|| stats::sd(values)),
            interval: stats::mean_interval(values),
        })
    }

    /// Oscillation: `100 sd / mean`; `None` where the mean is 0, or there is no deviation.
    pub fn oscillation_pct(&self) -> Option<f64> {
        self.sd.filter(|_| self.mean > 0.0).map(|sd| 100.0 * sd / self.mean)
    }
}

/// Overshoot, in percent of the settled `level`: how far the values of the `transient` went past the level in the
/// direction in which the limit drove the rate, from the rate it had `before`.
///
/// Down: `100 (level - min) / level`. Up: `100 (max - level) / level`. 0 where nothing went past it, or where there was no
/// transient; `None` where the level is 0.
pub fn overshoot_pct(transient: &[f64], before: f64, level: f64) -> Option<f64> {
    let past = transient
        .iter()
        .map(|rate| if before >= level { level - rate } else { rate - level })
        .fold(0.0, f64::max);
    (level > 0.0).then(|| 100.0 * past / level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oscillation_is_the_deviation_as_a_share_of_the_mean() {
        let steady = Steady::of(&[90.0, 110.0, 90.0, 110.0]).expect("four values");
        assert!((steady.oscillation_pct().expect("a deviation") - 11.547).abs() < 1e-3);
        assert!((steady.median - 100.0).abs() < 1e-9);
    }

    #[test]
    fn what_can_not_be_computed_is_not_zero() {
        assert_eq!(Steady::of(&[]), None);
        let zeros = Steady::of(&[0.0, 0.0]).expect("two values");
        assert_eq!((zeros.sd, zeros.oscillation_pct()), (Some(0.0), None));
        let one = Steady::of(&[5.0]).expect("one value");
        assert_eq!((one.sd, one.interval, one.oscillation_pct()), (None, None, None));
        assert_eq!(overshoot_pct(&[3.0], 5.0, 0.0), None);
    }

    #[test]
    fn overshoot_counts_only_what_goes_past_the_level_in_the_direction_of_the_step() {
        let is = |found: Option<f64>, expected: f64| {
            assert!(
                found.is_some_and(|found| (found - expected).abs() < 1e-9),
                "{found:?} is not {expected}"
            );
        };
        // From 1700 down to 100, touching 60 on the way.
        is(overshoot_pct(&[1700.0, 60.0, 120.0], 1700.0, 100.0), 40.0);
        // From 25 up to 100, touching 150.
        is(overshoot_pct(&[25.0, 150.0, 90.0], 25.0, 100.0), 50.0);
        // Comes down without going past.
        is(overshoot_pct(&[400.0, 200.0, 110.0], 1700.0, 100.0), 0.0);
        is(overshoot_pct(&[], 1700.0, 100.0), 0.0);
    }
}
