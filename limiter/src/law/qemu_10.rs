//! The dirty limit of QEMU 10.
//!
//! As [`qemu_7_2`](super::qemu_7_2), but the throttle is a `g_usleep`, which goes on after a signal. The sync that ends a
//! period then waits for the sleeper, yet the period's length was taken before: the reading stays near ring
//! bytes / period while the guest really runs as little as the throttle says.

use super::{
    descriptor::{Descriptor, Enforced, Law},
    periodic::{PeriodicLaw, Policy, Reading, RingFullReap, SleepEnd, Threads},
    qemu::{BOUNDS, Throttles, whole_quota},
};
use crate::units::Micros;

pub(super) const QEMU_10: Descriptor = Descriptor {
    name: "qemu-10",
    description: "QEMU 10: as 7.2, but the sleep runs its course and the measurement waits for it",
    law: Law::Periodic(|ring_entries| Box::new(Qemu10::new(ring_entries))),
    enforced: Enforced::AtFullRing,
    policy: Policy {
        threads: Threads::Merged,
        ring_full_reap: RingFullReap::OwnRing,
        reaper_beside: false,
        sleep_end: SleepEnd::RunsOut,
    },
    bounds: BOUNDS,
    limits_whole_vm: false,
};

/// The law of QEMU 10.
#[derive(Clone, Debug)]
pub struct Qemu10 {
    throttles: Throttles,
}

impl Qemu10 {
    /// For rings of `ring_entries` entries.
    pub fn new(ring_entries: u32) -> Self {
        Self {
            throttles: Throttles::new(ring_entries),
        }
    }
}

impl PeriodicLaw for Qemu10 {
    fn adjust(&mut self, readings: &[Reading]) {
        for reading in readings {
            if let Some(quota) = reading.quota {
                self.throttles
                    .adjust(reading.vcpu, whole_quota(quota), reading.harvest.whole());
            }
        }
    }

    fn throttle(&self, vcpu: usize) -> Micros {
        self.throttles.throttle(vcpu)
    }

    fn unplugged(&mut self, vcpu: usize) {
        self.throttles.clear(vcpu);
    }

    /// Nothing: throttles and the highest rate outlive the machinery.
    fn ended(&mut self) {}
}
