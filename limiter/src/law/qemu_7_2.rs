//! The dirty limit that QEMU merged, as in QEMU 7.1 and 7.2.
//!
//! One thread measures, then adjusts. A ring-full exit reaps the full ring only, and the background reaper idles while
//! a limit is in service. The throttle is a `usleep`, which the kick of the sync that ends each period cuts short: a
//! vCPU gets through at least one ring a period, so that ring bytes / period is a floor in truth.

use super::{
    descriptor::{Descriptor, Enforced, Law},
    periodic::{PeriodicLaw, Policy, Reading, RingFullReap, SleepEnd, Threads},
    qemu::{BOUNDS, Throttles, whole_quota},
};
use crate::units::Micros;

pub(super) const QEMU_7_2: Descriptor = Descriptor {
    name: "qemu-7.2",
    description: "QEMU 7.2: sleep after a full ring, one thread, the kick of each period ends the sleep",
    law: Law::Periodic(|ring_entries| Box::new(Qemu72::new(ring_entries))),
    enforced: Enforced::AtFullRing,
    policy: Policy {
        threads: Threads::Merged,
        ring_full_reap: RingFullReap::OwnRing,
        reaper_beside: false,
        sleep_end: SleepEnd::KickEndsIt,
    },
    bounds: BOUNDS,
    limits_whole_vm: false,
};

/// The law of QEMU 7.2.
#[derive(Clone, Debug)]
pub struct Qemu72 {
    throttles: Throttles,
}

impl Qemu72 {
    /// For rings of `ring_entries` entries.
    pub fn new(ring_entries: u32) -> Self {
        Self {
            throttles: Throttles::new(ring_entries),
        }
    }
}

impl PeriodicLaw for Qemu72 {
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
