//! QEMU's dirty limit as its patch series v11 had it (January 2022).
//!
//! Measuring and adjusting are two threads of one period each, unsynchronised. Because of that an adjustment may meet
//! the reading it has already answered, and a *miss counter* lets it act on every second miss only. A ring-full exit
//! reaps every vCPU's ring, and the background reaper goes on beside the limiter.

use super::{
    descriptor::{Descriptor, Enforced, Law},
    periodic::{PeriodicLaw, Policy, Reading, RingFullReap, SleepEnd, Threads},
    qemu::{BOUNDS, Throttles, is_within_tolerance, whole_quota},
};
use crate::{rate::WholeMibPerSec, units::Micros};

/// Adjustments happen on this miss; the ones before it are skipped.
const MISSES_TO_ACT: u64 = 2;

pub(super) const QEMU_V11: Descriptor = Descriptor {
    name: "qemu-v11",
    description: "QEMU's patch series v11: sleep after a full ring, two threads, acts on every second miss",
    law: Law::Periodic(|ring_entries| Box::new(QemuV11::new(ring_entries))),
    enforced: Enforced::AtFullRing,
    policy: Policy {
        threads: Threads::Split,
        ring_full_reap: RingFullReap::AllRings,
        reaper_beside: true,
        sleep_end: SleepEnd::KickEndsIt,
    },
    bounds: BOUNDS,
    limits_whole_vm: false,
};

/// The law of the patch series v11.
#[derive(Clone, Debug)]
pub struct QemuV11 {
    throttles: Throttles,
    /// The miss counters (`unmatched_cnt`), by vCPU index; a vCPU beyond the end has missed nothing.
    misses: Vec<u64>,
}

impl QemuV11 {
    /// For rings of `ring_entries` entries.
    pub fn new(ring_entries: u32) -> Self {
        Self {
            throttles: Throttles::new(ring_entries),
            misses: Vec::new(),
        }
    }

    fn adjust_one(&mut self, vcpu: usize, quota: WholeMibPerSec, current: WholeMibPerSec) {
        if self.misses.len() <= vcpu {
            self.misses.resize(vcpu + 1, 0);
        }
        let misses = &mut self.misses[vcpu];
        if current.0 == 0 && *misses == 0 {
            self.throttles.clear(vcpu);
            return;
        }
        *misses += 1;
        if *misses < MISSES_TO_ACT {
            return;
        }
        // The count is not reset here, so that the first miss after a match is answered at once.
        if is_within_tolerance(quota, current) {
            return;
        }
        *misses = 0;
        // With a reading of 0 the series divides by zero here; ours ends the throttle, as the merged version does.
        self.throttles.adjust(vcpu, quota, current);
    }
}

impl PeriodicLaw for QemuV11 {
    fn adjust(&mut self, readings: &[Reading]) {
        for reading in readings {
            if let Some(quota) = reading.quota {
                self.adjust_one(reading.vcpu, whole_quota(quota), reading.harvest.whole());
            }
        }
    }

    fn throttle(&self, vcpu: usize) -> Micros {
        self.throttles.throttle(vcpu)
    }

    fn unplugged(&mut self, vcpu: usize) {
        self.throttles.clear(vcpu);
    }

    /// The miss counters go with the machinery; throttles and the highest rate outlive it.
    fn ended(&mut self) {
        self.misses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row: current at a quota of 100 and ring 4096, the count of misses and the throttle in us that follow.
    fn assert_steps(rows: &[(u64, u64, u64)]) {
        let mut law = QemuV11::new(4096);
        for (row, &(current, misses, throttle)) in rows.iter().enumerate() {
            law.adjust_one(0, WholeMibPerSec(100), WholeMibPerSec(current));
            assert_eq!(
                (law.misses[0], law.throttle(0)),
                (misses, Micros(throttle)),
                "row {row}: current {current}"
            );
        }
    }

    #[test]
    fn acts_on_every_second_miss() {
        assert_steps(&[(1000, 1, 0), (1000, 0, 144_000), (1000, 1, 144_000), (1000, 0, 288_000)]);
    }

    #[test]
    fn a_match_neither_acts_nor_resets_the_count() {
        assert_steps(&[
            (1000, 1, 0),
            (110, 2, 0),
            (90, 3, 0),
            (1000, 0, 144_000),
            (110, 1, 144_000),
            (1000, 0, 288_000),
        ]);
    }

    #[test]
    fn a_reading_of_zero_ends_the_throttle_at_once_unless_a_miss_is_counted() {
        assert_steps(&[(1000, 1, 0), (1000, 0, 144_000), (0, 0, 0)]);
        // With one counted it comes to the adjustment, which would divide by zero.
        assert_steps(&[(1000, 1, 0), (1000, 0, 144_000), (1000, 1, 144_000), (0, 0, 0)]);
    }

    #[test]
    fn the_count_ends_with_the_machinery_and_the_throttle_does_not() {
        let mut law = QemuV11::new(4096);
        for _ in 0..3 {
            law.adjust_one(0, WholeMibPerSec(100), WholeMibPerSec(1000));
        }
        law.ended();
        law.adjust_one(0, WholeMibPerSec(100), WholeMibPerSec(1000));
        assert_eq!(law.throttle(0), Micros(144_000), "the first miss again");
        law.unplugged(0);
        assert_eq!(law.throttle(0), Micros(0));
    }
}
