//! The confidence interval of a change of medians, by bootstrap.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::analysis::stats::{Interval, median, percentile};

/// Resamples: enough that the ends of a 95 % interval don't depend on the seed.
const RESAMPLES: usize = 2000;

/// The 95 % interval of `median(candidate) - median(baseline)`: both sides are drawn from themselves again and again,
/// with replacement, and the middle 95 % of what comes out is the interval (the percentile method; Efron 1979). The same
/// values always give the same interval. Of a single value a side it has no width, and says nothing.
pub fn median_change(baseline: &[f64], candidate: &[f64]) -> Interval {
    let mut rng = SmallRng::seed_from_u64(RESAMPLES as u64);
    let mut drawn = |values: &[f64]| -> f64 {
        let again: Vec<f64> = values
            .iter()
            .map(|_| values[rng.random_range(0..values.len())])
            .collect();
        median(&again)
    };
    let mut changes: Vec<f64> = (0..RESAMPLES).map(|_| drawn(candidate) - drawn(baseline)).collect();
    changes.sort_unstable_by(f64::total_cmp);
    let end = |q| percentile(&changes, q).expect("there are resamples");
    Interval {
        low: end(0.025),
        high: end(0.975),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_spread_give_an_interval_without_width() {
        let interval = median_change(&[2.0; 5], &[5.0; 7]);
        assert!((interval.low - 3.0).abs() < 1e-12 && (interval.high - 3.0).abs() < 1e-12);
    }

    #[test]
    fn intervals_cover_the_change_about_as_often_as_they_say() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut sample = |n: usize, shift: f64| -> Vec<f64> {
            // The sum of twelve uniform values is close to normal, with variance 1.
            (0..n)
                .map(|_| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0 + shift)
                .collect()
        };
        for (n, least) in [(8, 90), (20, 90)] {
            let covered = (0..200)
                .filter(|_| {
                    let interval = median_change(&sample(n, 0.0), &sample(n, 1.0));
                    interval.low <= 1.0 && 1.0 <= interval.high
                })
                .count();
            assert!(covered >= 2 * least, "{n} a side: {covered} of 200");
        }
    }
}
