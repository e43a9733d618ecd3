//! Sleep at the ring-full exit: the passive throttle of QEMU's dirty limit.
//!
//! A vCPU sleeps only when its ring is full. Whoever flushes the ring more often than the vCPU fills it takes the
//! throttle away: hence the floor of ring bytes a period.

use std::{sync::Arc, time::Duration};

use super::{Enforcement, Pause};
use crate::{
    kvm::{Error, vcpu::Exit},
    law::periodic::{Policy, RingFullReap},
    rings::Whose,
    shared::Shared,
    units::Pages,
};

/// Reaps a full ring, then sleeps the throttle that the governor last set.
pub(crate) struct RingFullSleep {
    shared: Arc<Shared>,
    vcpu: usize,
    policy: Policy,
    /// Pages harvested from the vCPU's ring when it was last full.
    harvested: Option<Pages>,
}

impl RingFullSleep {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize, policy: Policy) -> Self {
        Self {
            shared,
            vcpu,
            policy,
            harvested: None,
        }
    }
}

impl Enforcement for RingFullSleep {
    fn after_exit(&mut self, exit: Exit, _left: Duration) -> Result<Pause, Error> {
        if exit != Exit::RingFull {
            return Ok(Pause::NONE);
        }
        let Shared { limits, rings, .. } = &*self.shared;
        let in_service = limits.in_service();
        rings.reap(match self.policy.ring_full_reap {
            RingFullReap::OwnRing if in_service => Whose::One(self.vcpu),
            RingFullReap::OwnRing | RingFullReap::AllRings => Whose::All,
        })?;
        // Others may have emptied the ring first, but somebody must have, since it was full the last time.
        let harvested = rings.harvested(self.vcpu);
        if self.harvested.replace(harvested) == Some(harvested) {
            return Err(Error::RingStuck { vcpu: self.vcpu });
        }
        if !in_service || limits.quota(self.vcpu).is_none() {
            return Ok(Pause::NONE);
        }
        Ok(Pause {
            asked: limits.throttle(self.vcpu).into(),
            end: self.policy.sleep_end,
        })
    }
}
