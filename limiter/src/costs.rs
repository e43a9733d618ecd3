//! What the rings of a VM cost whoever empties them.

use std::time::Duration;

/// Time spent on dirty rings, and the entries that it was spent on; all vCPUs together. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingCosts {
    /// Time to look for entries and take note of them.
    pub harvesting: Duration,
    /// Entries harvested.
    pub harvested: u64,
    /// Time to mark entries, pass their pages on, and have the kernel take them back.
    pub resetting: Duration,
    /// Entries taken back.
    pub reset: u64,
}

impl RingCosts {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            harvesting: self.harvesting.saturating_sub(earlier.harvesting),
            harvested: self.harvested.saturating_sub(earlier.harvested),
            resetting: self.resetting.saturating_sub(earlier.resetting),
            reset: self.reset.saturating_sub(earlier.reset),
        }
    }

    /// Nanoseconds to harvest an entry; `None` where none was.
    pub fn harvest_ns_entry(self) -> Option<f64> {
        an_entry(self.harvesting, self.harvested)
    }

    /// Nanoseconds to give an entry back; `None` where none was.
    pub fn reset_ns_entry(self) -> Option<f64> {
        an_entry(self.resetting, self.reset)
    }
}

fn an_entry(time: Duration, entries: u64) -> Option<f64> {
    (entries > 0).then(|| time.as_nanos() as f64 / entries as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_the_entries_since() {
        let costs = |harvesting, harvested, resetting, reset| RingCosts {
            harvesting: Duration::from_nanos(harvesting),
            harvested,
            resetting: Duration::from_nanos(resetting),
            reset,
        };
        let since = costs(900, 200, 1000, 150).since(costs(500, 100, 200, 50));
        assert_eq!(since, costs(400, 100, 800, 100));
        assert_eq!(since.harvest_ns_entry(), Some(4.0));
        assert_eq!(since.reset_ns_entry(), Some(8.0));
        assert_eq!(RingCosts::default().harvest_ns_entry(), None);
    }
}
