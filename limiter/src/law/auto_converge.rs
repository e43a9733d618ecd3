//! QEMU's auto-converge: all vCPUs run for a slice and then sleep a share of the time, whoever dirties.
//!
//! Migration drives it; here the quota does. A period whose rate is above the quota raises the share: to 20 %, then by
//! 10 up to 99. Nothing lowers it: QEMU never does while a migration runs, so the limiter ends far below a quota that
//! it overshot, and stays there until the last limit is cancelled.

use std::time::Duration;

use super::periodic::Reading;
use crate::units::MibPerSec;

/// How long a vCPU runs between two sleeps.
pub const RUN_SLICE: Duration = Duration::from_millis(10);

/// The first share of time to be slept, in percent.
const INITIAL_PCT: u32 = 20;

/// By how much it is raised.
const INCREMENT_PCT: u32 = 10;

/// The highest share.
const MAX_PCT: u32 = 99;

/// The share of time that every vCPU sleeps.
#[derive(Clone, Debug, Default)]
pub struct AutoConverge {
    /// 0 before the quota was first exceeded.
    pct: u32,
}

impl AutoConverge {
    /// Nobody sleeps yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the readings of one period. The quota of the machine is the sum of its vCPUs' limits, and is compared
    /// with what those that have one dirty together.
    pub fn adjust(&mut self, readings: &[Reading]) {
        let (mut quota, mut rate) = (0.0, 0.0);
        for reading in readings {
            if let Some(limit) = reading.quota {
                quota += limit.mib_per_sec();
                rate += reading.harvest.exact().0;
            }
        }
        self.adjust_vm(MibPerSec(quota), MibPerSec(rate));
    }

    /// The same for a quota of the whole machine.
    pub fn adjust_vm(&mut self, quota: MibPerSec, rate: MibPerSec) {
        if rate > quota {
            self.pct = match self.pct {
                0 => INITIAL_PCT,
                pct => (pct + INCREMENT_PCT).min(MAX_PCT),
            };
        }
    }

    /// The share of time slept, in percent.
    pub fn percent(&self) -> u32 {
        self.pct
    }

    /// The sleep that *every* vCPU, limited or not, takes after each [`RUN_SLICE`] of running; zero for none.
    pub fn pause(&self) -> Duration {
        RUN_SLICE * self.pct / (100 - self.pct)
    }

    /// The last limit was cancelled.
    pub fn ended(&mut self) {
        self.pct = 0;
    }
}
