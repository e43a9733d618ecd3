//! Rates averaged under overlapping triangular windows.
//!
//! A limiter that sleeps when the ring is full lets the guest run in bursts, so a rate means nothing below the
//! limiter's own time scale, its period W. Plain means over W won't do either: they hold one fill of the ring or two
//! by chance of where they begin, and a perfectly even limiter seems to swing. So value i is the mean under a triangle
//! that rises from `start + i W` to its top one W later and falls to 0 another W later. Neighbours overlap by half and
//! their weights add up to one everywhere, so that nothing is lost; but of bursts that come every T seconds a share of
//! only `(sin x / x)^2` with `x = pi W / T` is left: under 0.2 % at T = 1.04 W where plain means keep 4 %, and at most
//! 5 % for every T < W.

/// Fine bins per W, of which a triangle is made: weights 1 2 3 4 3 2 1.
const PARTS: usize = 4;
/// How many fine bins a triangle covers.
const COVERED: usize = 2 * PARTS - 1;

/// Averages a rate that is constant between samples.
#[derive(Clone, Debug)]
pub struct Windows {
    part_s: f64,
    start_s: f64,
    /// Up to where samples were taken in.
    at_s: f64,
    /// Means of the full fine bins.
    parts: Vec<f64>,
    /// Integral of the rate over the open fine bin so far.
    area: f64,
    values: Vec<f64>,
}

impl Windows {
    /// Windows `width_s` apart and twice as wide, the first one from `start_s` on.
    ///
    /// # Panics
    /// If the width is not above zero.
    pub fn new(start_s: f64, width_s: f64) -> Self {
        assert!(width_s > 0.0, "a window must have a width");
        Self {
            part_s: width_s / PARTS as f64,
            start_s,
            at_s: start_s,
            parts: Vec::new(),
            area: 0.0,
            values: Vec::new(),
        }
    }

    /// All values of a series of `(t_s, rate)`.
    pub fn over(series: impl IntoIterator<Item = (f64, f64)>, start_s: f64, width_s: f64) -> Vec<f64> {
        let mut windows = Self::new(start_s, width_s);
        for (t_s, rate) in series {
            windows.push(t_s, rate);
        }
        windows.values
    }

    /// Takes in the mean `rate` from the previous sample to `t_s`, and says whether that made a new value. What lies
    /// before the start, or before the previous sample, is left out.
    pub fn push(&mut self, t_s: f64, rate: f64) -> bool {
        let known = self.values.len();
        loop {
            // From the start each time, so that no error adds up.
            let end_s = self.start_s + (self.parts.len() + 1) as f64 * self.part_s;
            // A sample time that was computed another way may differ in its last digits.
            if t_s < end_s - 1e-9 {
                break;
            }
            self.area += rate * (end_s - self.at_s).max(0.0);
            self.parts.push(self.area / self.part_s);
            self.area = 0.0;
            self.at_s = self.at_s.max(end_s);
            self.weigh();
        }
        if t_s > self.at_s {
            self.area += rate * (t_s - self.at_s);
            self.at_s = t_s;
        }
        self.values.len() > known
    }

    /// The values so far.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    fn weigh(&mut self) {
        let first = self.values.len() * PARTS;
        if let Some(parts) = self.parts.get(first..first + COVERED) {
            let weighted = parts.iter().enumerate().map(|(index, part)| {
                let weight = PARTS - index.abs_diff(PARTS - 1);
                weight as f64 * part
            });
            self.values.push(weighted.sum::<f64>() / (PARTS * PARTS) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_are_those_of_a_triangle() {
        // One unit of area in fine bin k shows as weight k + 1 of 16, and each bin counts once in all values together.
        for (bin, weights) in [
            (0, [1.0, 0.0]),
            (3, [4.0, 0.0]),
            (5, [2.0, 2.0]),
            (6, [1.0, 3.0]),
            (7, [0.0, 4.0]),
        ] {
            let series = (0..12).map(|index| (f64::from(index + 1) * 0.25, f64::from(u8::from(index == bin))));
            let values = Windows::over(series, 0.0, 1.0);
            assert_eq!(values, weights.map(|weight| weight / 16.0), "bin {bin}");
        }
    }

    #[test]
    fn what_lies_before_the_start_is_left_out() {
        assert_eq!(Windows::over([(-1.0, 99.0), (0.0, 99.0), (2.0, 5.0)], 0.0, 1.0), [5.0]);
        assert_eq!(Windows::over([(2.0, 99.0), (4.0, 8.0)], 2.0, 1.0), [8.0]);
    }

    #[test]
    fn a_value_waits_until_its_window_is_full() {
        assert_eq!(Windows::over([(1.74, 5.0)], 0.0, 1.0), [] as [f64; 0]);
        assert_eq!(Windows::over([(1.75, 5.0)], 0.0, 1.0), [5.0]);
    }

    proptest! {
        #[test]
        fn the_mean_is_kept_however_the_samples_fall(
            steps in prop::collection::vec((0.01..3.0_f64, 0.0..2000.0_f64), 1..100),
            width in 0.05..2.5_f64,
        ) {
            // Silence of two windows at both ends, so that every fine bin gets its full weight.
            let mut t_s = 2.0 * width;
            let mut series = vec![(t_s, 0.0)];
            let mut area = 0.0;
            for (step, rate) in steps {
                t_s += step;
                area += step * rate;
                series.push((t_s, rate));
            }
            series.push((t_s + 4.0 * width, 0.0));
            let sum: f64 = Windows::over(series, 0.0, width).iter().sum();
            prop_assert!((sum * width - area).abs() <= 1e-6 * area.max(1.0), "{} is not {area}", sum * width);
        }
    }
}
