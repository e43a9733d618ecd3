//! Rates averaged over windows of one width.
//!
//! A limiter that sleeps when the ring is full lets the guest run in bursts, so a rate means nothing below the
//! limiter's own time scale. Everything about steadiness is therefore judged on means over bins.

/// Averages a rate that is constant between samples over consecutive bins.
#[derive(Clone, Debug)]
pub struct Binner {
    width_s: f64,
    /// Up to where samples were taken in.
    at_s: f64,
    /// Start of the open bin: `start + closed x width`, so that no error adds up.
    start_s: f64,
    closed: u32,
    /// Integral of the rate over the open bin so far.
    area: f64,
}

impl Binner {
    /// Bins of `width_s` seconds, the first one from `start_s` on.
    ///
    /// # Panics
    /// If the width is not above zero.
    pub fn new(start_s: f64, width_s: f64) -> Self {
        assert!(width_s > 0.0, "a bin must have a width");
        Self {
            width_s,
            at_s: start_s,
            start_s,
            closed: 0,
            area: 0.0,
        }
    }

    /// Takes in the mean `rate` from the previous sample to `t_s`; the means of the bins that this closes are appended
    /// to `bins`. What lies before the first bin, or before the previous sample, is left out.
    pub fn push(&mut self, t_s: f64, rate: f64, bins: &mut Vec<f64>) {
        loop {
            let end = self.start_s + f64::from(self.closed + 1) * self.width_s;
            if t_s < end {
                break;
            }
            self.area += rate * (end - self.at_s).max(0.0);
            bins.push(self.area / self.width_s);
            self.area = 0.0;
            self.at_s = self.at_s.max(end);
            self.closed += 1;
        }
        if t_s > self.at_s {
            self.area += rate * (t_s - self.at_s);
            self.at_s = t_s;
        }
    }
}

/// The closed bins of a whole series of `(t_s, rate)`.
pub fn bin(series: impl IntoIterator<Item = (f64, f64)>, start_s: f64, width_s: f64) -> Vec<f64> {
    let mut binner = Binner::new(start_s, width_s);
    let mut bins = Vec::new();
    for (t_s, rate) in series {
        binner.push(t_s, rate, &mut bins);
    }
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sample_is_shared_among_the_bins_it_spans() {
        // 10 for 1.5 s, then 20 for 1.5 s, in bins of 1 s.
        assert_eq!(bin([(1.5, 10.0), (3.0, 20.0)], 0.0, 1.0), [10.0, 15.0, 20.0]);
    }

    #[test]
    fn what_lies_before_the_start_is_left_out() {
        assert_eq!(bin([(-1.0, 99.0), (0.0, 99.0), (1.0, 5.0)], 0.0, 1.0), [5.0]);
        assert_eq!(bin([(2.5, 8.0), (3.0, 4.0)], 2.0, 1.0), [6.0]);
    }

    #[test]
    fn an_unfinished_bin_is_not_given() {
        assert_eq!(bin([(0.999, 5.0)], 0.0, 1.0), [] as [f64; 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_the_samples_fall(steps in prop::collection::vec((0.01..3.0_f64, 0.0..2000.0_f64), 1..100),
                                                    width in 0.05..2.5_f64) {
            let mut t_s = 0.0;
            let series: Vec<(f64, f64)> = steps.iter().map(|&(step, rate)| { t_s += step; (t_s, rate) }).collect();
            let bins = bin(series.clone(), 0.0, width);
            let end = bins.len() as f64 * width;
            prop_assert!(end <= t_s + 1e-9 && t_s < end + width + 1e-9);
            let mut at = 0.0;
            let area: f64 = series.iter().map(|&(t, rate)| {
                let part = (t.min(end) - at).max(0.0) * rate;
                at = t;
                part
            }).sum();
            prop_assert!((bins.iter().sum::<f64>() * width - area).abs() < 1e-6 * area.max(1.0));
        }
    }
}
