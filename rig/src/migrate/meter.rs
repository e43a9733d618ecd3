//! The rate at which pages go, from counts that are read now and then.

use std::{collections::VecDeque, time::Duration};

use dirtyrig_limiter::units::{MibPerSec, Pages};

/// A rate is taken over this long: QEMU sends in chunks of 100 ms.
const WINDOW: Duration = Duration::from_secs(2);
/// By so much a count may be ahead or behind.
const CHUNK: Duration = Duration::from_millis(100);
/// Over less than this, nothing can be said.
const LEAST: Duration = Duration::from_millis(500);

/// Counts of pages that were sent.
#[derive(Debug, Default)]
pub(super) struct Meter {
    counts: VecDeque<(Duration, Pages)>,
    first: Option<(Duration, Pages)>,
}

impl Meter {
    /// At `now`, `sent` pages have been sent since the start.
    pub(super) fn count(&mut self, now: Duration, sent: Pages) {
        self.first.get_or_insert((now, sent));
        self.counts.push_back((now, sent));
        while self.counts.len() > 2 && now.saturating_sub(self.counts[1].0) >= WINDOW {
            self.counts.pop_front();
        }
    }

    /// The rate over the last window; `None` if that is too short.
    pub(super) fn rate(&self) -> Option<MibPerSec> {
        let (from, to) = (self.counts.front()?, self.counts.back()?);
        let span = to.0.saturating_sub(from.0);
        (span >= LEAST).then(|| Pages(to.1.0.saturating_sub(from.1.0)).per(span))?
    }

    /// What the link carries, given that `promised` was said of it: less only if chunks don't explain it, over the last
    /// window or over all that was sent.
    pub(super) fn at_most(&self, promised: MibPerSec) -> MibPerSec {
        let Some(&to) = self.counts.back() else {
            return promised;
        };
        let could = |from: (Duration, Pages)| {
            let span = to.0.saturating_sub(from.0);
            let sent = Pages(to.1.0.saturating_sub(from.1.0)).per(span)?.0;
            (span >= LEAST).then(|| sent + promised.0 * CHUNK.as_secs_f64() / span.as_secs_f64())
        };
        let froms = [self.first, self.counts.front().copied()];
        MibPerSec(froms.into_iter().flatten().filter_map(could).fold(promised.0, f64::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(rates: &[(u64, u64)]) -> Meter {
        let mut meter = Meter::default();
        let (mut now, mut sent) = (0, 0);
        for &(millis, pages_per_100_ms) in rates {
            for _ in 0..millis / 100 {
                meter.count(Duration::from_millis(now), Pages(sent));
                now += 100;
                sent += pages_per_100_ms;
            }
        }
        meter
    }

    #[test]
    fn a_link_as_fast_as_promised_stays_so_and_a_slower_one_is_noticed() {
        // 25.6 pages in 100 ms are 1 MiB/s.
        let promised = MibPerSec(100.0);
        assert_eq!(fed(&[]).at_most(promised), promised);
        assert_eq!(fed(&[(400, 0)]).at_most(promised), promised, "too short to tell");
        assert_eq!(
            fed(&[(5_000, 2_540)]).at_most(promised),
            promised,
            "a chunk explains it"
        );
        let halved = fed(&[(5_000, 2_560), (2_100, 1_280)]).at_most(promised).0;
        assert!((50.0..56.0).contains(&halved), "{halved}");
        let slow = fed(&[(10_000, 2_300)]).at_most(promised).0;
        assert!((89.0..92.0).contains(&slow), "over all of it: {slow}");
    }

    #[test]
    fn the_rate_is_that_of_the_last_window() {
        let rate = fed(&[(5_000, 2_560), (2_200, 1_280)]).rate().expect("long enough").0;
        assert!((rate - 50.0).abs() < 1.0, "{rate}");
        assert_eq!(fed(&[(300, 5)]).rate(), None);
    }
}
