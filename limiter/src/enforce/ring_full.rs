//! Sleep at the ring-full exit: the passive throttle of QEMU's dirty limit.
//!
//! A vCPU sleeps only when its ring is full. Whoever flushes the ring more often than the vCPU fills it takes the
//! throttle away: hence the floor of ring bytes per period.

use std::{sync::Arc, time::Duration};

use super::enforcement::{Enforcement, Pause};
use crate::{
    Error,
    exit::Exit,
    law::{
        full_ring::FullRingLaw,
        periodic::{Policy, RingFullReap},
    },
    rings::Whose,
    shared::Shared,
    units::Pages,
};

/// Reaps a full ring, then sleeps the throttle: the one that the governor last set, or the one that a law computes here.
pub(crate) struct RingFullSleep {
    shared: Arc<Shared>,
    vcpu: usize,
    policy: Policy,
    computed: Option<Box<dyn FullRingLaw>>,
    /// The pages harvested when its ring was last full.
    at_last_full: Pages,
    /// The sleep to take before the next entry.
    due: Duration,
}

impl RingFullSleep {
    pub(crate) fn new(
        shared: Arc<Shared>,
        vcpu: usize,
        policy: Policy,
        computed: Option<Box<dyn FullRingLaw>>,
    ) -> Self {
        Self {
            shared,
            vcpu,
            policy,
            computed,
            at_last_full: Pages(0),
            due: Duration::ZERO,
        }
    }
}

impl Enforcement for RingFullSleep {
    fn before_entry(&mut self, _now: Duration) -> Result<Pause, Error> {
        Ok(Pause {
            asked: std::mem::take(&mut self.due),
            end: self.policy.sleep_end,
        })
    }

    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<(), Error> {
        if exit != Exit::RingFull {
            return Ok(());
        }
        let Shared { limits, rings, .. } = &*self.shared;
        let in_service = limits.in_service();
        rings.reap(match self.policy.ring_full_reap {
            RingFullReap::OwnRing if in_service => Whose::One(self.vcpu),
            RingFullReap::OwnRing | RingFullReap::AllRings => Whose::All,
        })?;
        let harvested = rings.harvested(self.vcpu);
        let pages = Pages(harvested.0 - self.at_last_full.0);
        self.at_last_full = harvested;
        match (&mut self.computed, limits.quota(self.vcpu)) {
            (None, None) => {}
            (None, Some(_)) => self.due = limits.throttle(self.vcpu).into(),
            (Some(law), None) => law.forget(),
            (Some(law), Some(quota)) => self.due = law.sleep(left, pages, quota),
        }
        Ok(())
    }
}
