//! What the laws that work in periods have in common: a reading of each vCPU goes in, a throttle comes out.

use crate::{
    rate::Harvest,
    units::{Micros, Quota},
};

/// What one period said about one plugged vCPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// Its limit, if it has one.
    pub quota: Option<Quota>,
    /// What its ring gave in the period.
    pub harvest: Harvest,
}

/// A law that adjusts, once a period, the sleep that a vCPU takes after each ring-full exit.
pub trait PeriodicLaw: Send {
    /// Takes the readings of one period, one a plugged vCPU. A vCPU without a quota is left as it is.
    fn adjust(&mut self, readings: &[Reading]);

    /// The sleep that `vcpu` takes after a ring-full exit, *if it has a limit*: cancelling does not change it, so a
    /// limit that is set again starts from the throttle that the previous one ended with.
    fn throttle(&self, vcpu: usize) -> Micros;

    /// `vcpu` was unplugged; if it is plugged again it starts without a throttle.
    fn unplugged(&mut self, vcpu: usize);

    /// The last limit was cancelled, which ends the machinery: what the next first set finds anew is forgotten here.
    fn ended(&mut self);
}

/// How the threads around a law behave. QEMU's versions differ in this more than in their arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Which threads measure and adjust.
    pub(crate) threads: Threads,
    /// Whose ring is reaped at a ring-full exit while a limit is in service. (Without one it is all, always.)
    pub(crate) ring_full_reap: RingFullReap,
    /// Whether the 1 s background reaper goes on beside the limiter, or idles while a limit is in service.
    pub(crate) reaper_beside: bool,
    /// What a kick does to a vCPU that sleeps off its throttle.
    pub(crate) sleep_end: SleepEnd,
}

impl Policy {
    /// Where no limiter does it: as in QEMU without a limit.
    pub(crate) const UNLIMITED: Self = Self {
        threads: Threads::Merged,
        ring_full_reap: RingFullReap::AllRings,
        reaper_beside: true,
        sleep_end: SleepEnd::KickEndsIt,
    };
}

/// Which threads measure and adjust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Two threads of the same period, not synchronised: an adjustment may see a reading twice, or miss one.
    Split,
    /// One thread: measure, then adjust.
    Merged,
}

/// Whose ring is reaped at a ring-full exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingFullReap {
    /// Every vCPU's.
    AllRings,
    /// Only that of the vCPU that exited.
    OwnRing,
}

/// What the kick of the periodic sync does to a vCPU that sleeps off its throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SleepEnd {
    /// It cuts the sleep short, so that every vCPU runs at least once a period.
    KickEndsIt,
    /// Nothing: the sleep runs its course and the sync waits for it.
    RunsOut,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{law::LimiterKind, units::Pages};

    fn reading(vcpu: usize, quota: Option<f64>) -> Reading {
        Reading {
            vcpu,
            quota: quota.map(|rate| Quota::new(rate).expect("a quota")),
            harvest: Harvest {
                pages: Pages(256_000),
                over: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn a_throttle_outlives_its_limit_but_not_its_vcpu() {
        for kind in [LimiterKind::QemuV11, LimiterKind::Qemu72, LimiterKind::Qemu10] {
            let mut law = kind.periodic_law(4096).expect("a law of QEMU");
            // v11 acts on the second.
            for _ in 0..if kind == LimiterKind::QemuV11 { 2 } else { 1 } {
                law.adjust(&[reading(0, None), reading(1, Some(100.0))]);
            }
            assert_eq!(
                (law.throttle(0), law.throttle(1)),
                (Micros(0), Micros(144_000)),
                "{kind}"
            );
            law.adjust(&[reading(0, None), reading(1, None)]);
            law.ended();
            assert_eq!(law.throttle(1), Micros(144_000), "{kind}");
            law.unplugged(1);
            assert_eq!(law.throttle(1), Micros(0), "{kind}");
        }
    }
}
