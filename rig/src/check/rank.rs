//! The Mann-Whitney rank test: do two samples come from one distribution?
//!
//! Exact, ties included, where the samples are small: the distribution of the rank sum over all ways to choose the first
//! sample from the pooled values (a permutation test on mid-ranks). Above that, the normal approximation of `statrs`, with
//! its corrections for ties and continuity. The exact test of `statrs` 0.19 is not used: it takes the wrong tail where the
//! first sample is not the larger one, knows no ties, and walks through every combination.

use statrs::stats_tests::{
    Alternative,
    mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu},
};

/// Pooled size up to which the test is exact: more would take long, and the normal approximation is close by then.
const EXACT_UP_TO: usize = 60;

/// The two-sided p value; 1 where either sample is empty. No value may be NaN.
pub fn p_value(x: &[f64], y: &[f64]) -> f64 {
    if x.is_empty() || y.is_empty() {
        1.0
    } else if x.len() + y.len() <= EXACT_UP_TO {
        exact(x, y)
    } else {
        let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
        // Where all values are the same there is nothing to rank, and the test's z is 0 / 0.
        mannwhitneyu(x, y, method, Alternative::TwoSided).map_or(1.0, |(_, p)| if p.is_nan() { 1.0 } else { p })
    }
}

/// The smallest p value that samples of these sizes can give: the one where all of one lie above the other.
pub fn least_p(x: usize, y: usize) -> f64 {
    // C(x + y, x), as a product so that it stays a float.
    let ways: f64 = (1..=x.min(y)).map(|k| (x.max(y) + k) as f64 / k as f64).product();
    (2.0 / ways).min(1.0)
}

/// Samples of how many values each can give a p value of `p` at all.
pub fn least_size(p: f64) -> usize {
    let mut n = 1;
    // It falls to a quarter with each step.
    while least_p(n, n) > p {
        n += 1;
    }
    n
}

fn exact(x: &[f64], y: &[f64]) -> f64 {
    let ranks = doubled_ranks(x, y);
    let observed: usize = ranks[..x.len()].iter().sum();
    // ways[k][s]: in how many ways k of the ranks looked at so far add up to s.
    let total: usize = ranks.iter().sum();
    let mut ways = vec![vec![0.0_f64; total + 1]; x.len() + 1];
    ways[0][0] = 1.0;
    for (seen, &rank) in ranks.iter().enumerate() {
        for k in (0..x.len().min(seen + 1)).rev() {
            let (fewer, more) = ways.split_at_mut(k + 1);
            for (sum, &count) in fewer[k][..=total - rank].iter().enumerate() {
                if count > 0.0 {
                    more[0][sum + rank] += count;
                }
            }
        }
    }
    // The distribution is symmetric about its mean, also with ties: mirror the ranks.
    let mean = x.len() * (ranks.len() + 1);
    let off = observed.abs_diff(mean);
    let all: f64 = ways[x.len()].iter().sum();
    let as_far: f64 = ways[x.len()]
        .iter()
        .enumerate()
        .filter(|(sum, _)| sum.abs_diff(mean) >= off)
        .map(|(_, count)| count)
        .sum();
    (as_far / all).min(1.0)
}

/// Twice the rank of each value among all of them, so that the mean rank of tied values is whole.
fn doubled_ranks(x: &[f64], y: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = x.iter().chain(y).copied().collect();
    let rank = |value: &f64| {
        let below = all.iter().filter(|other| other.total_cmp(value).is_lt()).count();
        let tied = all.iter().filter(|other| other.total_cmp(value).is_eq()).count();
        2 * below + tied + 1
    };
    all.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Over every way to choose which of the pooled values are x: the share whose rank sum is as far from the mean.
    fn enumerated(x: &[f64], y: &[f64]) -> f64 {
        let ranks = doubled_ranks(x, y);
        let mean = x.len() * (ranks.len() + 1);
        let off = ranks[..x.len()].iter().sum::<usize>().abs_diff(mean);
        let (mut all, mut as_far) = (0, 0);
        for mask in 0_u32..1 << ranks.len() {
            if mask.count_ones() as usize == x.len() {
                let sum: usize = (0..ranks.len())
                    .filter(|bit| mask >> bit & 1 == 1)
                    .map(|bit| ranks[bit])
                    .sum();
                all += 1;
                as_far += u32::from(sum.abs_diff(mean) >= off);
            }
        }
        f64::from(as_far) / f64::from(all)
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn matches_published_examples() {
        // The example of R's and SciPy's documentation of this test.
        let male = [19.0, 22.0, 16.0, 29.0, 24.0];
        let female = [20.0, 11.0, 17.0, 12.0];
        assert!(near(p_value(&male, &female), 1.0 / 9.0));
        // Critical values for n = 5 each at 5 %, two-sided: U = 2 is significant, U = 3 is not.
        let low = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!(p_value(&low, &[4.5, 4.6, 6.0, 7.0, 8.0]) < 0.05);
        assert!(p_value(&low, &[3.5, 4.6, 6.0, 7.0, 8.0]) > 0.05);
    }

    #[test]
    fn the_sides_are_interchangeable() {
        let (x, y) = ([1.0, 4.0, 9.0], [2.0, 3.0, 10.0, 11.0, 12.0]);
        assert!(near(p_value(&x, &y), p_value(&y, &x)));
    }

    #[test]
    fn exact_and_approximation_agree_where_one_follows_the_other() {
        let x: Vec<f64> = (0..30).map(|i| f64::from(i * 7 % 31)).collect();
        let y: Vec<f64> = (0..30).map(|i| f64::from(i * 11 % 37) + 6.5).collect();
        let exact = exact(&x, &y);
        let (_, approximate) = mannwhitneyu(
            &x,
            &y,
            MannWhitneyUMethod::AsymptoticInclContinuityCorrection,
            Alternative::TwoSided,
        )
        .expect("valid samples");
        assert!(
            (exact - approximate).abs() < 0.1 * exact + 0.002,
            "{exact} and {approximate}"
        );
        let long: Vec<f64> = x.iter().chain(&x).copied().collect();
        assert!(near(p_value(&long, &long), 1.0));
        assert!(near(p_value(&[3.0; 40], &[3.0; 40]), 1.0), "all tied");
    }

    #[test]
    fn the_least_p_value_is_that_of_separated_samples() {
        for (m, n) in [(1, 1), (3, 3), (4, 6), (8, 8)] {
            let x: Vec<f64> = (0..m).map(f64::from).collect();
            let y: Vec<f64> = (0..n).map(|value| 100.0 + f64::from(value)).collect();
            assert!(near(p_value(&x, &y), least_p(m as usize, n as usize)), "{m} and {n}");
        }
        assert_eq!(least_size(0.05), 4);
        assert_eq!(least_size(0.05 / 22.0), 6);
    }

    proptest! {
        /// Few different values, so that there are ties.
        #[test]
        fn exact_is_what_counting_every_case_gives(
            x in prop::collection::vec(0..6_u8, 1..6), y in prop::collection::vec(0..6_u8, 1..6),
        ) {
            let [x, y] = [x, y].map(|values| values.into_iter().map(f64::from).collect::<Vec<_>>());
            prop_assert!(near(p_value(&x, &y), enumerated(&x, &y)), "{} {}", p_value(&x, &y), enumerated(&x, &y));
        }
    }
}
