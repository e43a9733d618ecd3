//! How many repetitions it takes to tell.

use statrs::distribution::{ContinuousCDF, Normal};

use super::rank;

/// The chance with which a change that just matters is to be found.
const POWER: f64 = 0.9;

/// More than this is no answer to give anybody: the cell is too noisy for what is asked of it.
pub const MOST: usize = 1000;

/// Repetitions per side with which the rank test at level `p` finds a shift by `least`, nine times in ten. The figures
/// scatter as those of `x` and `y` do. It is more than there are, and at most [`MOST`].
///
/// Noether (1987): N = (z(1 - p / 2) + z(power))^2 / (3 (P - 1/2)^2), both sides together. P is the chance that a
/// shifted value exceeds one that is not: here the share of pairs within a side of which that is so.
pub fn repetitions(x: &[f64], y: &[f64], least: f64, p: f64) -> usize {
    let normal = Normal::standard();
    let z = normal.inverse_cdf(1.0 - p / 2.0) + normal.inverse_cdf(POWER);
    let by_spread = match exceeding(x, y, least) {
        // Every shifted value exceeds every other: the test's own least size is enough, which the formula doesn't know.
        Some(share) if share > 1.0 - 1e-9 => 0,
        Some(share) if share > 0.5 => (z * z / (3.0 * (share - 0.5).powi(2)) / 2.0).ceil() as usize,
        Some(_) => MOST,
        // A single value a side says nothing of the spread.
        None => 0,
    };
    let more_than_now = x.len().min(y.len()) + 1;
    by_spread.max(rank::least_size(p)).max(more_than_now).min(MOST)
}

/// The share of pairs of one side of which the first, shifted by `least`, exceeds the second.
fn exceeding(x: &[f64], y: &[f64], least: f64) -> Option<f64> {
    let (mut above, mut all) = (0.0, 0.0);
    for side in [x, y] {
        for (i, a) in side.iter().enumerate() {
            for (j, b) in side.iter().enumerate() {
                if i != j {
                    all += 1.0;
                    above += f64::from(a + least > *b) + 0.5 * f64::from((a + least - b).abs() < f64::EPSILON);
                }
            }
        }
    }
    (all > 0.0).then(|| above / all)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn what_scatters_little_needs_only_what_the_test_needs() {
        let steady = [10.0, 10.1, 10.2];
        assert_eq!(repetitions(&steady, &steady, 5.0, 0.01 / 12.0), 7);
        assert_eq!(repetitions(&[1.0], &[1.0], 5.0, 0.01), 5);
    }

    #[test]
    fn what_scatters_much_needs_more_and_there_is_an_end_to_it() {
        let wild: Vec<f64> = (0..20).map(f64::from).collect();
        let some = repetitions(&wild, &wild, 5.0, 0.01);
        assert!((21..200).contains(&some), "{some}");
        assert_eq!(repetitions(&wild, &wild, 0.001, 0.01), MOST);
    }

    #[test]
    fn the_number_it_names_does_find_the_change() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut sample = |n: usize, shift: f64| -> Vec<f64> {
            (0..n)
                .map(|_| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0 + shift)
                .collect()
        };
        let p = 0.01 / 12.0;
        let n = repetitions(&sample(40, 0.0), &sample(40, 0.0), 1.5, p);
        assert!((10..60).contains(&n), "{n}");
        let found = (0..200)
            .filter(|_| rank::p_value(&sample(n, 0.0), &sample(n, 1.5)) <= p)
            .count();
        assert!(found >= 160, "{n} a side find it {found} times in 200");
    }
}
