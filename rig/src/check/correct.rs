//! Corrects p values for being many.
//!
//! Benjamini and Hochberg (1995): of what is flagged, at most a share alpha is expected to be chance. Where nothing
//! changed at all, everything that is flagged is chance, and then the chance to flag anything is alpha too, as with Holm's
//! method: the exit code of an unchanged candidate is wrong equally rarely. Where something did change, Holm would miss
//! more of what goes with it. It holds for figures that move together (Benjamini and Yekutieli 2001), as the percentiles of
//! one run do.

/// The adjusted p values, in the order given: what is at most alpha is flagged.
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let count = p_values.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| p_values[b].total_cmp(&p_values[a]));
    let mut adjusted = vec![1.0; count];
    let mut least: f64 = 1.0;
    for (above, index) in order.into_iter().enumerate() {
        let rank = count - above;
        least = least.min(p_values[index] * count as f64 / rank as f64);
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn matches_the_example_of_its_authors() {
        // Benjamini and Hochberg 1995, section 3.2: at 5 % the first four of these fifteen are flagged.
        let p_values = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let flagged = adjusted(&p_values).iter().filter(|&&p| p <= 0.05).count();
        assert_eq!(flagged, 4);
    }

    #[test]
    fn where_nothing_changed_it_flags_anything_as_rarely_as_it_says() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut any = |size: usize| {
            let p_values: Vec<f64> = (0..size).map(|_| rng.random()).collect();
            adjusted(&p_values).iter().any(|&p| p <= 0.05)
        };
        for size in [1, 11, 200] {
            let flagged = (0..4000).filter(|_| any(size)).count();
            assert!((140..=260).contains(&flagged), "{flagged} of 4000 families of {size}");
        }
    }

    proptest! {
        #[test]
        fn never_less_than_what_it_corrects_nor_more_than_bonferroni(
            p_values in prop::collection::vec(0.0..=1.0_f64, 0..50),
        ) {
            for (p, corrected) in p_values.iter().zip(adjusted(&p_values)) {
                let bonferroni = (p * p_values.len() as f64).min(1.0);
                prop_assert!(*p <= corrected + 1e-12 && corrected <= bonferroni.max(*p) + 1e-12);
            }
        }
    }
}
