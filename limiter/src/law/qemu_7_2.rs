//! The dirty limit that QEMU merged, as in QEMU 7.1 and 7.2.
//!
//! One thread measures, then adjusts. A ring-full exit reaps the full ring only, and the background reaper idles while
//! a limit is in service. The throttle is a `usleep`, which the kick of the sync that ends each period cuts short: a
//! vCPU gets through at least one ring a period, so that ring bytes / period is a floor in truth.

use super::{
    periodic::{PeriodicLaw, Policy, Reading, RingFullReap, SleepEnd, Threads},
    qemu::{Throttles, whole_quota},
};
use crate::units::Micros;

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
    fn policy(&self) -> Policy {
        Policy {
            threads: Threads::Merged,
            ring_full_reap: RingFullReap::OwnRing,
            reaper_beside: false,
            sleep_end: SleepEnd::KickEndsIt,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rate::Harvest,
        units::{Pages, Quota},
    };

    #[test]
    fn a_vcpu_without_a_limit_is_left_as_it_is() {
        let reading = |vcpu, quota: Option<f64>| Reading {
            vcpu,
            quota: quota.map(|rate| Quota::new(rate).expect("a quota")),
            harvest: Harvest {
                pages: Pages(256_000),
                over: std::time::Duration::from_secs(1),
            },
        };
        let mut law = Qemu72::new(4096);
        law.adjust(&[reading(0, None), reading(1, Some(100.0))]);
        assert_eq!((law.throttle(0), law.throttle(1)), (Micros(0), Micros(144_000)));
        // Cancelled, and the machinery ended: the throttle stays for the next limit, unless the vCPU goes.
        law.adjust(&[reading(1, None)]);
        law.ended();
        assert_eq!(law.throttle(1), Micros(144_000));
        law.unplugged(1);
        assert_eq!(law.throttle(1), Micros(0));
    }
}
