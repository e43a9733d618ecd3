//! The adjustment that all versions of QEMU's dirty limit share, in QEMU's integers.
//!
//! All rates are whole MiB/s. The law integrates: each adjustment is added to the standing throttle of a vCPU.

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

/// How far the throttle moves. Neither rate is 0, so that a difference is at most 99 % and the divisor at least 1.
fn step_us(ring_full_us: u64, quota: u64, current: u64) -> u64 {
    let pct = quota.abs_diff(current) * 100 / quota.max(current);
    if pct > LINEAR_ABOVE_PCT {
        // QEMU divides by a double and truncates the quotient. All values are integers far below 2^53, where an
        // integer division gives the same: a correctly rounded quotient never reaches the next integer from below.
        ring_full_us * pct / (100 - pct)
    } else {
        ring_full_us / FIXED_STEP_DIVISOR
    }
}

/// The whole MiB/s that a QEMU law works towards: the nearest to `quota`, halves up, and at least 1 because 0 cancels.
pub(super) fn whole_quota(quota: Quota) -> WholeMibPerSec {
    WholeMibPerSec((quota.mib_per_sec().round() as u64).max(1))
}
