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
