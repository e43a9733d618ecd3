//! QEMU's auto-converge: all vCPUs run for a slice and then sleep a share of the time, whoever dirties.
//!
//! Migration drives it; here the quota does. A period whose rate is above the quota raises the share: to 20 %, then by
//! 10 up to 99. Nothing lowers it: QEMU never does while a migration runs, so the limiter ends far below a quota that
//! it overshot, and stays there until the last limit is cancelled.

use std::time::Duration;

use super::{
    descriptor::{Bounds, Descriptor, Enforced, Law},
    periodic::{Policy, Reading},
};
use crate::units::Quota;

/// How long a vCPU runs between two sleeps.
pub const RUN_SLICE: Duration = Duration::from_millis(10);

/// The first share of time to be slept, in percent.
const INITIAL_PCT: u32 = 20;

/// By how much it is raised.
const INCREMENT_PCT: u32 = 10;

/// The highest share.
const MAX_PCT: u32 = 99;

pub(super) const AUTO_CONVERGE: Descriptor = Descriptor {
    name: "auto-converge",
    description: "QEMU's auto-converge: every vCPU sleeps 20 to 99 % of the time, readers too",
    law: Law::AutoConverge,
    enforced: Enforced::ByRunSlice,
    policy: Policy::UNLIMITED,
    bounds: Bounds {
        is_periodic: true,
        cap_share: Some((100 - MAX_PCT) as f64 / 100.0),
        ..Bounds::NONE
    },
    limits_whole_vm: true,
};

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

    /// Takes the readings of one period. Two quotas count: the sum of the vCPUs' limits, compared with what those that have
    /// one dirty together, and `vm`, that of the whole machine, compared with what all dirty. The share of time rises if
    /// either is exceeded.
    pub fn adjust(&mut self, readings: &[Reading], vm: Option<Quota>) {
        let (mut quota, mut limited, mut all) = (0.0, 0.0, 0.0);
        for reading in readings {
            let rate = reading.harvest.exact().0;
            all += rate;
            if let Some(limit) = reading.quota {
                quota += limit.mib_per_sec();
                limited += rate;
            }
        }
        if limited > quota || vm.is_some_and(|vm| all > vm.mib_per_sec()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rate::Harvest,
        units::{Pages, Quota},
    };

    fn reading(vcpu: usize, quota: Option<f64>, mib: u64) -> Reading {
        Reading {
            vcpu,
            quota: quota.map(|rate| Quota::new(rate).expect("a quota")),
            harvest: Harvest {
                pages: Pages(mib * 256),
                over: Duration::from_secs(1),
            },
        }
    }

    fn adjusted(law: &mut AutoConverge, quota: f64, mib: u64) -> u32 {
        law.adjust(&[reading(0, Some(quota), mib)], None);
        law.percent()
    }

    #[test]
    fn rises_from_20_by_10_to_99_and_never_falls() {
        let mut law = AutoConverge::new();
        let steps = [(); 11].map(|()| adjusted(&mut law, 25.0, 26));
        assert_eq!(steps, [20, 30, 40, 50, 60, 70, 80, 90, 99, 99, 99]);
        assert_eq!(adjusted(&mut law, 25.0, 1), 99);
        law.ended();
        assert_eq!(law.percent(), 0);
    }

    #[test]
    fn a_rate_at_the_quota_is_held() {
        let mut law = AutoConverge::new();
        assert_eq!((adjusted(&mut law, 25.0, 25), law.pause()), (0, Duration::ZERO));
    }

    #[test]
    fn a_pause_makes_the_percentage_of_slice_and_pause() {
        for (steps, pause_us) in [(1, 2_500), (4, 10_000), (8, 90_000), (9, 990_000)] {
            let mut law = AutoConverge::new();
            for _ in 0..steps {
                adjusted(&mut law, 1.0, 2);
            }
            assert_eq!(law.pause(), Duration::from_micros(pause_us));
        }
    }

    #[test]
    fn the_limited_vcpus_are_taken_together() {
        let readings = |second| {
            [
                reading(0, Some(100.0), 150),
                reading(1, Some(100.0), second),
                reading(2, None, 1000),
            ]
        };
        let mut law = AutoConverge::new();
        law.adjust(&readings(40), None);
        assert_eq!(law.percent(), 0, "190 of 200; the one without a limit does not count");
        law.adjust(&readings(51), None);
        assert_eq!(law.percent(), 20);
        let mut unlimited = AutoConverge::new();
        unlimited.adjust(&[reading(0, None, 1000)], None);
        assert_eq!(unlimited.percent(), 0);
    }

    #[test]
    fn the_machines_quota_counts_every_vcpu() {
        let vm = |quota| Some(Quota::new(quota).expect("a quota"));
        let readings = [reading(0, Some(100.0), 90), reading(1, None, 20)];
        let mut law = AutoConverge::new();
        law.adjust(&readings, vm(110.0));
        assert_eq!(law.percent(), 0, "110 of 110");
        law.adjust(&readings, vm(109.0));
        assert_eq!(law.percent(), 20);
    }
}
