//! What a vCPU's ring says about its dirty rate: QEMU's whole-number reading and the exact one.

use std::time::Duration;

use crate::units::{MibPerSec, PAGES_PER_MIB, Pages};

/// A rate in whole MiB/s, the only resolution that QEMU's limiter has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WholeMibPerSec(pub u64);

impl From<WholeMibPerSec> for MibPerSec {
    fn from(whole: WholeMibPerSec) -> Self {
        Self(whole.0 as f64)
    }
}

/// Pages harvested from one vCPU's ring, and the time they are taken to have been dirtied in.
///
/// A page that is dirtied again after a reset counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harvest {
    /// Pages harvested.
    pub pages: Pages,
    /// The time that the limiter divides by, which need not be the time that passed: QEMU takes it before the sync
    /// that ends the period.
    pub over: Duration,
}

impl Harvest {
    /// The rate as QEMU computes it: truncated to whole MiB, then scaled by 1000 / milliseconds, truncated again.
    ///
    /// At a period of 1 s everything below 1 MiB/s reads as 0; at 100 ms the reading moves in steps of 10 MiB/s. QEMU
    /// never measures for less than a millisecond; a shorter time is taken as one.
    pub fn whole(self) -> WholeMibPerSec {
        let whole_mib = u128::from(self.pages.0 / PAGES_PER_MIB);
        let millis = self.over.as_millis().max(1);
        WholeMibPerSec(u64::try_from(whole_mib * 1000 / millis).unwrap_or(u64::MAX))
    }

    /// The rate with its fraction; 0 where no time has passed.
    pub fn exact(self) -> MibPerSec {
        self.pages.per(self.over).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pages: u64, micros: u64) -> u64 {
        let harvest = Harvest {
            pages: Pages(pages),
            over: Duration::from_micros(micros),
        };
        harvest.whole().0
    }

    #[test]
    fn qemus_rate_is_truncated_twice() {
        // A full ring of 65536 less its reserve is 255.75 MiB.
        assert_eq!(whole(65_472, 1_000_000), 255);
        assert_eq!(whole(65_472, 1_003_000), 254, "255,000 / 1,003 = 254.2");
        assert_eq!(whole(255, 1_000_000), 0, "less than a MiB");
        assert_eq!(whole(256, 1_000_000), 1);
        assert_eq!(whole(511, 100_000), 10, "1 MiB in 100 ms");
        assert_eq!(whole(512, 100_000), 20, "steps of 10");
        assert_eq!(whole(1024, 2_000_000), 2);
        assert_eq!(whole(256, 2_000_000), 0, "1,000 / 2,000");
    }

    #[test]
    fn qemus_clock_ticks_in_milliseconds() {
        assert_eq!(whole(25_600, 999_900), 100, "100,000 / 999 = 100.1");
        assert_eq!(whole(25_600, 100_900), 1000, "a period of 100");
        assert_eq!(whole(256, 300), 1000, "taken as 1 ms");
        assert_eq!(whole(u64::MAX, 0), u64::MAX, "saturates");
    }

    #[test]
    fn the_exact_rate_has_its_fraction() {
        let exact = |pages, over| {
            Harvest {
                pages: Pages(pages),
                over,
            }
            .exact()
        };
        assert_eq!(exact(65_472, Duration::from_secs(1)), MibPerSec(255.75));
        assert_eq!(exact(64, Duration::from_millis(500)), MibPerSec(0.5));
        assert_eq!(exact(64, Duration::ZERO), MibPerSec(0.0));
    }
}
