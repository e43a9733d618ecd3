//! The adjustment that all versions of QEMU's dirty limit share, in QEMU's integers.
//!
//! All rates are whole MiB/s. The law integrates: each adjustment is added to the standing throttle of a vCPU.

use super::descriptor::Bounds;
use crate::{
    rate::WholeMibPerSec,
    units::{Micros, PAGES_PER_MIB, Quota},
};

/// Below this distance of quota and reading, in MiB/s, nothing is adjusted.
const TOLERANCE: u64 = 25;

/// Above this distance, in percent of the larger of the two, the step is linear; else it is fixed.
const LINEAR_ABOVE_PCT: u64 = 50;

/// A fixed step is the ring-full time divided by this.
const FIXED_STEP_DIVISOR: u64 = 10;

/// A throttle is never above this many ring-full times: a vCPU runs at least 1 % of the time.
const CAP_RING_FULL_TIMES: u64 = 99;

/// What bounds them: they act on whole rings, once a period, and leave a vCPU at least 1 % of its time.
pub(super) const BOUNDS: Bounds = Bounds {
    is_periodic: true,
    whole_rings: true,
    ring_cycles: false,
    cap_share: Some(1.0 / (CAP_RING_FULL_TIMES + 1) as f64),
    tolerance_mib_s: Some(TOLERANCE as f64),
};

/// The throttles of a machine's vCPUs and what they are computed from.
#[derive(Clone, Debug)]
pub(super) struct Throttles {
    /// Nominal size of a ring: the reserve that makes it full earlier is ignored, and so is a fraction of a MiB, so
    /// that a ring below 256 entries is never throttled at all.
    ring_mib: u64,
    /// The highest rate that any vCPU was adjusted at. Shared by all, and it never decays.
    max_rate: u64,
    /// By vCPU index; a vCPU beyond the end was never adjusted.
    throttle_us: Vec<u64>,
}

impl Throttles {
    pub(super) fn new(ring_entries: u32) -> Self {
        Self {
            ring_mib: u64::from(ring_entries) / PAGES_PER_MIB,
            max_rate: 0,
            throttle_us: Vec::new(),
        }
    }

    pub(super) fn throttle(&self, vcpu: usize) -> Micros {
        Micros(self.throttle_us.get(vcpu).copied().unwrap_or(0))
    }

    pub(super) fn clear(&mut self, vcpu: usize) {
        if let Some(throttle_us) = self.throttle_us.get_mut(vcpu) {
            *throttle_us = 0;
        }
    }

    /// One adjustment of one vCPU.
    pub(super) fn adjust(&mut self, vcpu: usize, quota: WholeMibPerSec, current: WholeMibPerSec) {
        if is_within_tolerance(quota, current) {
            return;
        }
        if current.0 == 0 {
            self.clear(vcpu);
            return;
        }
        let ring_full_us = self.ring_full_us(current.0);
        let step_us = step_us(ring_full_us, quota.0, current.0);
        if self.throttle_us.len() <= vcpu {
            self.throttle_us.resize(vcpu + 1, 0);
        }
        let throttle_us = &mut self.throttle_us[vcpu];
        let moved = if current > quota {
            throttle_us.saturating_add(step_us)
        } else {
            throttle_us.saturating_sub(step_us)
        };
        *throttle_us = moved.min(ring_full_us.saturating_mul(CAP_RING_FULL_TIMES));
    }

    /// How long a vCPU takes to fill a ring at the highest rate seen so far, `current` included.
    fn ring_full_us(&mut self, current: u64) -> u64 {
        self.max_rate = self.max_rate.max(current);
        self.ring_mib * 1_000_000 / self.max_rate
    }
}

/// Whether the law is content with `current`. It is at any rate from 0 to 50 for a quota of 25.
pub(super) fn is_within_tolerance(quota: WholeMibPerSec, current: WholeMibPerSec) -> bool {
    quota.0.abs_diff(current.0) <= TOLERANCE
}

/// How far the throttle moves. Neither rate is 0, so that they differ by at most 99 %.
fn step_us(ring_full_us: u64, quota: u64, current: u64) -> u64 {
    let pct = u128::from(quota.abs_diff(current)) * 100 / u128::from(quota.max(current));
    let pct = u64::try_from(pct).expect("a percentage");
    if pct > LINEAR_ABOVE_PCT {
        // QEMU divides by a double and truncates the quotient, with the same result: a quotient below 2^45 that is not
        // whole is too far from the next integer to be rounded up to it.
        ring_full_us * pct / (100 - pct)
    } else {
        ring_full_us / FIXED_STEP_DIVISOR
    }
}

/// The whole MiB/s that a QEMU law works towards: the nearest to `quota`, halves up, and at least 1 because 0 cancels.
pub(super) fn whole_quota(quota: Quota) -> WholeMibPerSec {
    WholeMibPerSec((quota.mib_per_sec().round() as u64).max(1))
}

#[cfg(test)]
mod tests {
    //! Adjustments worked out by hand from the description of the law.

    use proptest::prelude::*;

    use super::*;

    /// Each row: quota, current, and the throttle in us that follows from the row before.
    fn assert_throttles(ring_entries: u32, rows: &[(u64, u64, u64)]) {
        let mut throttles = Throttles::new(ring_entries);
        for (row, &(quota, current, expected)) in rows.iter().enumerate() {
            throttles.adjust(0, WholeMibPerSec(quota), WholeMibPerSec(current));
            assert_eq!(
                throttles.throttle(0),
                Micros(expected),
                "row {row}: quota {quota}, current {current}"
            );
        }
    }

    #[test]
    fn within_25_nothing_changes() {
        assert_throttles(
            4096,
            &[(100, 125, 0), (100, 75, 0), (25, 50, 0), (25, 0, 0), (1, 26, 0)],
        );
        // 26 above: ring full in 16,000,000 / 126 = 126,984 us, a tenth of it.
        assert_throttles(4096, &[(100, 126, 12_698)]);
    }

    #[test]
    fn up_to_half_the_step_is_a_tenth_of_the_ring_full_time() {
        // 16 MiB at 1,000 MiB/s: 16,000 us. (1000 - 500) x 100 / 1000 = 50 is not above 50.
        assert_throttles(
            4096,
            &[
                (500, 1000, 1_600),
                (500, 1000, 3_200),
                (500, 700, 4_800),
                (500, 300, 3_200),
            ],
        );
        // (51 - 25) x 100 / 51 = 50.98, truncated to 50: fixed. 16,000,000 / 51 = 313,725 us.
        assert_throttles(4096, &[(25, 51, 31_372)]);
    }

    #[test]
    fn above_half_the_step_is_linear_and_truncated() {
        // 499 of 1,000: (501 x 100) / 1000 = 50, fixed still; 489: 51. 16,000 x 51 / 49 = 16,653.06.
        assert_throttles(4096, &[(499, 1000, 1_600)]);
        assert_throttles(4096, &[(489, 1000, 16_653)]);
        // 90 %: 16,000 x 90 / 10 = 144,000; it adds up.
        assert_throttles(4096, &[(100, 1000, 144_000), (100, 1000, 288_000)]);
        // Ring 65536, 256 MiB at 1,170: 218,803 us; (914 x 100) / 1170 = 78; 218,803 x 78 / 22 = 775,756.09.
        assert_throttles(65_536, &[(256, 1170, 775_756)]);
    }

    #[test]
    fn below_the_quota_the_step_is_subtracted() {
        // 16,000 us stand, from the 1,000 seen first. Below by 40 %: 1,600 less. By 70 %: 16,000 x 70 / 30 = 37,333.33.
        assert_throttles(4096, &[(100, 1000, 144_000), (100, 60, 142_400), (100, 30, 105_067)]);
    }

    #[test]
    fn the_throttle_is_never_below_zero() {
        // 16,000 x 60 / 40 = 24,000 from 1,600.
        assert_throttles(4096, &[(500, 1000, 1_600), (1000, 400, 0), (500, 1000, 1_600)]);
    }

    #[test]
    fn the_throttle_is_never_above_99_ring_full_times() {
        // 99 %: 16,000 x 99 / 1 = 1,584,000, which is the cap as well.
        assert_throttles(
            4096,
            &[(10, 1000, 1_584_000), (10, 1000, 1_584_000), (500, 1000, 1_584_000)],
        );
        // A new highest rate lowers the cap below the standing throttle: 16,000,000 / 2,000 x 99.
        assert_throttles(4096, &[(10, 1000, 1_584_000), (1200, 2000, 792_000)]);
        // 65536 entries at 1,170: the 21.66 s per vCPU may sleep.
        assert_throttles(65_536, &[(1, 1170, 21_661_497)]);
    }

    #[test]
    fn a_reading_of_zero_ends_the_throttle() {
        assert_throttles(4096, &[(100, 1000, 144_000), (100, 0, 0)]);
        // Unless that is within the tolerance.
        assert_throttles(4096, &[(10, 1000, 1_584_000), (10, 0, 1_584_000)]);
    }

    #[test]
    fn the_highest_rate_is_shared_and_does_not_decay() {
        let mut throttles = Throttles::new(4096);
        let mut adjust = |vcpu, quota, current| {
            throttles.adjust(vcpu, WholeMibPerSec(quota), WholeMibPerSec(current));
            throttles.throttle(vcpu).0
        };
        assert_eq!(adjust(0, 200, 300), 5_333, "16,000,000 / 300 / 10");
        assert_eq!(adjust(1, 900, 1600), 1_000, "16,000,000 / 1,600 / 10");
        assert_eq!(adjust(0, 200, 300), 6_333, "the other vCPU's rate counts");
        assert_eq!(adjust(2, 1600, 1600), 0);
    }

    #[test]
    fn a_rate_within_the_tolerance_is_not_remembered() {
        // 1,020 is not, so that 300 is the highest: 53,333 us.
        assert_throttles(4096, &[(1000, 1020, 0), (200, 300, 5_333)]);
    }

    #[test]
    fn a_ring_below_a_mib_is_never_throttled() {
        assert_throttles(128, &[(10, 1000, 0), (500, 1000, 0)]);
    }

    #[test]
    fn quotas_are_the_nearest_whole_mib_and_at_least_one() {
        for (quota, whole) in [(25.0, 25), (25.4, 25), (25.5, 26), (0.25, 1), (1e300, u64::MAX)] {
            assert_eq!(whole_quota(Quota::new(quota).expect("a quota")), WholeMibPerSec(whole));
        }
    }

    proptest! {
        #[test]
        fn integer_division_is_what_the_double_truncates_to(ring_full_us in 0_u64..1 << 38, pct in 0_u64..100) {
            let quotient = (ring_full_us * pct) as f64 / (100 - pct) as f64;
            prop_assert_eq!(ring_full_us * pct / (100 - pct), quotient as u64);
        }

        #[test]
        fn any_readings_keep_the_throttle_in_range(
            ring_bits in 6_u32..17,
            readings in proptest::collection::vec((0_usize..3, 1_u64..=u64::MAX, 0_u64..=u64::MAX), 1..50),
        ) {
            let mut throttles = Throttles::new(1 << ring_bits);
            for (vcpu, quota, current) in readings {
                throttles.adjust(vcpu, WholeMibPerSec(quota), WholeMibPerSec(current));
                prop_assert!(throttles.throttle(vcpu).0 <= 99 * throttles.ring_mib * 1_000_000);
            }
        }
    }
}
