//! Lengths of stalls, counted in the kernel: complete even where records were lost.

use std::time::Duration;

use dirtyrig_probes_common::{BUCKETS, Histogram, bucket_floor};

/// Lengths in nanoseconds, in eight buckets to an octave: a length is known to within an eighth of itself, up to two
/// minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StallHistogram {
    counts: Box<[u32]>,
}

impl Default for StallHistogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
        }
    }
}

impl From<&Histogram> for StallHistogram {
    fn from(histogram: &Histogram) -> Self {
        Self {
            counts: histogram.counts.as_slice().into(),
        }
    }
}

impl StallHistogram {
    /// How many stalls.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// The length that `share` of the stalls do not exceed (0.5: the median), as the middle of its bucket; `None`
    /// without stalls.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets().find_map(|(from, to, count)| {
            seen += count;
            (seen >= rank).then(|| (from + to) / 2)
        })
    }

    /// The buckets that hold anything: from, to (exclusive), how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> + '_ {
        self.counts
            .iter()
            .enumerate()
            .filter(|&(_, &count)| count > 0)
            .map(|(bucket, &count)| {
                let edge = |bucket: usize| Duration::from_nanos(bucket_floor(bucket as u32));
                (edge(bucket), edge(bucket + 1), u64::from(count))
            })
    }

    /// What came since `earlier`, an older copy of this histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        // The kernel's counts are 32 bits wide and wrap.
        let counts = self
            .counts
            .iter()
            .zip(&earlier.counts)
            .map(|(now, then)| now.wrapping_sub(*then))
            .collect();
        Self { counts }
    }
}

#[cfg(test)]
mod tests {
    use dirtyrig_probes_common::bucket_of;

    use super::*;

    fn histogram(lengths: &[u64]) -> StallHistogram {
        let mut histogram = StallHistogram::default();
        for &length in lengths {
            histogram.counts[bucket_of(length) as usize] += 1;
        }
        histogram
    }

    #[test]
    fn a_quantile_lies_within_an_eighth_of_the_value_that_naive_sorting_finds() {
        let lengths: Vec<u64> = (1..=1000).map(|n| n * n * 37).collect();
        let histogram = histogram(&lengths);
        for (share, naive) in [
            (0.5, lengths[499]),
            (0.99, lengths[989]),
            (0.999, lengths[998]),
            (1.0, lengths[999]),
        ] {
            let found = histogram.quantile(share).expect("a thousand lengths").as_nanos() as f64;
            assert!(
                (found - naive as f64).abs() <= naive as f64 / 8.0,
                "{share}: {found} for {naive}"
            );
        }
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(StallHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn since_takes_the_older_away() {
        let (older, newer) = (histogram(&[1000, 2000]), histogram(&[1000, 2000, 2000, 1 << 30]));
        assert_eq!(newer.since(&older), histogram(&[2000, 1 << 30]));
    }
}
