//! The statistics that everything else is made of.

use statrs::{
    distribution::{ContinuousCDF, StudentsT},
    statistics::{Data, OrderStatistics, Statistics},
};

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Half its width.
    pub fn half_width(self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// Arithmetic mean; `NaN` of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.mean()
}

/// Median, the mean of the middle two for an even number; `NaN` of nothing.
pub fn median(values: &[f64]) -> f64 {
    Data::new(values.to_vec()).median()
}

/// Standard deviation of the sample, `sqrt(sum (x - mean)^2 / (n - 1))`; 0 of fewer than two values.
pub fn sd(values: &[f64]) -> f64 {
    if values.len() < 2 { 0.0 } else { values.std_dev() }
}

/// The smallest of the `sorted` values that at least a share `q` of them don't exceed, which is how `HdrHistogram`
/// defines a percentile; `None` of nothing.
pub fn percentile<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The quantile `p` of Student's t distribution with `freedom` degrees of freedom (at least one; need not be whole).
pub fn student_t(p: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom.max(1.0))
        .expect("the degrees of freedom are above zero")
        .inverse_cdf(p)
}

/// How many independent values a series is worth: `n (1 - r) / (1 + r)`, between 2 and n.
///
/// `r` is the autocorrelation at lag 1, freed to first order of the bias that short series have
/// (Marriott and Pope, 1954: the expectation is `r - (1 + 4 r) / n`) and taken as 0 where it is negative: what
/// alternates is worth more than it seems, and here that is not relied on. Exact for a first-order autoregressive
/// series, and an approximation for others.
pub fn effective_size(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() <= 4 {
        return n.min(2.0);
    }
    let center = mean(values);
    let square: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    if square <= 0.0 {
        return n;
    }
    let lagged: f64 = values
        .windows(2)
        .map(|pair| (pair[0] - center) * (pair[1] - center))
        .sum();
    let r = ((lagged / square + 1.0 / n) / (1.0 - 4.0 / n)).clamp(0.0, 0.99);
    (n * (1.0 - r) / (1.0 + r)).clamp(2.0, n)
}

/// The 95 % confidence interval of the mean, `mean +- t(0.975, m - 1) sd / sqrt(m)` with m the [`effective_size`];
/// `None` for fewer than two values.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.len() < 2 {
        return None;
    }
    let size = effective_size(values);
    let (center, half) = (mean(values), student_t(0.975, size - 1.0) * sd(values) / size.sqrt());
    Some(Interval {
        low: center - half,
        high: center + half,
    })
}

/// A straight line through equally spaced values, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Change from the first value to the last.
    pub change: f64,
    /// Its standard error if the residuals are independent.
    pub error: f64,
    /// Degrees of freedom of that error.
    pub freedom: f64,
    /// Its standard error for residuals that are worth their [`effective_size`].
    pub wide_error: f64,
    /// Degrees of freedom of that error.
    pub wide_freedom: f64,
}

/// The trend of a series of at least three values.
pub fn trend(values: &[f64]) -> Option<Trend> {
    if values.len() < 3 {
        return None;
    }
    let n = values.len() as f64;
    let (center, middle) = (mean(values), (n - 1.0) / 2.0);
    let offsets = || (0..values.len()).map(|index| index as f64 - middle);
    let spread: f64 = offsets().map(|offset| offset * offset).sum();
    let slope = offsets()
        .zip(values)
        .map(|(offset, value)| offset * (value - center))
        .sum::<f64>()
        / spread;
    let residuals: Vec<f64> = offsets()
        .zip(values)
        .map(|(offset, value)| value - center - slope * offset)
        .collect();
    let square: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let size = effective_size(&residuals);
    let error = (square / (n - 2.0) / spread).sqrt() * (n - 1.0);
    Some(Trend {
        change: slope * (n - 1.0),
        error,
        freedom: n - 2.0,
        wide_error: error * (n / size).sqrt(),
        wide_freedom: (size - 2.0).max(1.0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-3 * expected.abs().max(1.0)
    }

    #[test]
    fn matches_values_from_tables() {
        assert!(near(student_t(0.975, 10.0), 2.228));
        assert!(near(student_t(0.975, 1.0), 12.706));
        assert!(near(student_t(0.95, 30.0), 1.697));
        assert!(near(sd(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), 2.138));
        assert!(near(median(&[4.0, 1.0, 3.0, 2.0]), 2.5));
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        let values: Vec<u32> = (1..=1000).collect();
        assert_eq!(percentile(&values, 0.5), Some(500));
        assert_eq!(percentile(&values, 0.99), Some(990));
        assert_eq!(percentile(&values, 0.999), Some(999));
        assert_eq!(percentile(&values, 1.0), Some(1000));
        assert_eq!(percentile(&[7], 0.0), Some(7));
        assert_eq!(percentile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn trend_of_a_line_is_the_line() {
        let line: Vec<f64> = (0..10).map(|index| 5.0 + 2.0 * f64::from(index)).collect();
        let trend = trend(&line).expect("ten values have a trend");
        assert!(near(trend.change, 18.0) && trend.error < 1e-9);
    }

    /// A first-order autoregressive series with mean 0.
    fn series(rng: &mut SmallRng, n: usize, r: f64) -> Vec<f64> {
        // The sum of twelve uniform values is close to normal, with variance 1.
        let mut noise = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let mut value = noise() / (1.0 - r * r).sqrt();
        (0..n)
            .map(|_| {
                value = r * value + noise();
                value
            })
            .collect()
    }

    #[test]
    fn intervals_cover_the_mean_as_often_as_they_say() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (n, r, least) in [(12, 0.0, 930), (60, 0.0, 930), (60, 0.5, 920), (200, 0.8, 910)] {
            let covered = (0..1000)
                .filter(|_| {
                    let interval = mean_interval(&series(&mut rng, n, r)).expect("many values");
                    interval.low <= 0.0 && 0.0 <= interval.high
                })
                .count();
            assert!(
                covered >= least,
                "n {n}, r {r}: {covered} of 1000 intervals cover the mean"
            );
        }
    }

    #[test]
    fn intervals_that_ignore_autocorrelation_would_not() {
        let mut rng = SmallRng::seed_from_u64(1);
        let covered = (0..1000)
            .filter(|_| {
                let values = series(&mut rng, 60, 0.8);
                mean(&values).abs() <= student_t(0.975, 59.0) * sd(&values) / 60_f64.sqrt()
            })
            .count();
        assert!(covered < 600, "{covered} of 1000: the test above would prove nothing");
    }

    proptest! {
        #[test]
        fn effective_size_stays_within_its_bounds(values in prop::collection::vec(0.0..1e4_f64, 2..200)) {
            let size = effective_size(&values);
            prop_assert!((2.0..=values.len() as f64).contains(&size));
        }
    }
}
