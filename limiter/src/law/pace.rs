//! How fast a vCPU can dirty, and so for how long it may run unobserved: the time that a deadline exit is armed for.

use std::time::Duration;

use crate::units::{MibPerSec, PAGES_PER_MIB, Pages};

/// Runs shorter than this say more about entry and exit than about the guest.
const SHORTEST_RUN: Duration = Duration::from_micros(20);

/// A peak is forgotten after one to two of these.
const MEMORY: Duration = Duration::from_secs(10);

/// The fastest recent run of a vCPU.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The highest rate since `since`, in pages per second.
    peak: f64,
    /// The highest rate of the [`MEMORY`] before that.
    earlier_peak: f64,
    since: Duration,
}

impl Pace {
    /// Nothing seen yet.
    pub fn new(now: Duration) -> Self {
        Self {
            peak: 0.0,
            earlier_peak: 0.0,
            since: now,
        }
    }

    /// The vCPU dirtied `pages` in the `ran` before `now` that it was in the guest.
    pub fn observe(&mut self, now: Duration, pages: Pages, ran: Duration) {
        if now.saturating_sub(self.since) >= MEMORY {
            self.earlier_peak = std::mem::take(&mut self.peak);
            self.since = now;
        }
        if ran >= SHORTEST_RUN {
            self.peak = self.peak.max(pages.0 as f64 / ran.as_secs_f64());
        }
    }

    /// The fastest recent run; `None` before the vCPU was seen to dirty anything.
    pub fn fastest(&self) -> Option<MibPerSec> {
        let peak = self.peak();
        (peak > 0.0).then(|| MibPerSec(peak / PAGES_PER_MIB as f64))
    }

    /// How long the vCPU may run before it could have spent `grant`, within `shortest..=longest`; `shortest` while
    /// nothing is known of it, because the first run is as fast as any.
    pub fn slice(&self, grant: Pages, shortest: Duration, longest: Duration) -> Duration {
        let peak = self.peak();
        let spent_in = if peak > 0.0 { grant.0 as f64 / peak } else { 0.0 };
        Duration::try_from_secs_f64(spent_in)
            .unwrap_or(Duration::MAX)
            .max(shortest)
            .min(longest)
    }

    fn peak(&self) -> f64 {
        self.peak.max(self.earlier_peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(5);

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_slice_is_the_time_that_the_fastest_run_would_need() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.slice(Pages(100), SHORTEST, LONGEST), SHORTEST, "nothing known");
        pace.observe(us(1000), Pages(100), us(1000));
        pace.observe(us(2000), Pages(10), us(1000));
        assert_eq!(pace.slice(Pages(32), SHORTEST, LONGEST), us(320));
        assert_eq!(pace.slice(Pages(1), SHORTEST, LONGEST), SHORTEST);
        assert_eq!(pace.slice(Pages(u64::MAX), SHORTEST, LONGEST), LONGEST);
        assert_eq!(pace.fastest(), Some(MibPerSec(100_000.0 / 256.0)));
    }

    #[test]
    fn a_run_too_short_to_tell_does_not_count() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.observe(us(1), Pages(50), us(1));
        assert_eq!(pace.fastest(), None);
    }

    #[test]
    fn a_peak_is_forgotten() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.observe(us(1000), Pages(1000), us(1000));
        pace.observe(MEMORY, Pages(10), us(1000));
        assert_eq!(
            pace.fastest().map(MibPerSec::pages_per_sec),
            Some(1_000_000.0),
            "remembered for one more"
        );
        pace.observe(MEMORY * 2, Pages(10), us(1000));
        assert_eq!(pace.fastest().map(MibPerSec::pages_per_sec), Some(10_000.0));
    }
}
