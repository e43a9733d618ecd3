//! Sleep at the ring-full exit: the passive throttle of QEMU's dirty limit.
//!
//! A vCPU sleeps only when its ring is full. Whoever flushes the ring more often than the vCPU fills it takes the
//! throttle away: hence the floor of ring bytes a period.

use std::{sync::Arc, time::Duration};

use super::{Enforcement, Pause};
use crate::{
    Error,
    exit::Exit,
    law::periodic::{Policy, RingFullReap},
    rings::Whose,
    shared::Shared,
};

/// Reaps a full ring, then sleeps the throttle that the governor last set.
pub(crate) struct RingFullSleep {
    shared: Arc<Shared>,
    vcpu: usize,
    policy: Policy,
    /// The sleep to take before the next entry.
    due: Duration,
}

impl RingFullSleep {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize, policy: Policy) -> Self {
        Self {
            shared,
            vcpu,
            policy,
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

    fn after_exit(&mut self, exit: Exit, _left: Duration) -> Result<(), Error> {
        if exit != Exit::RingFull {
            return Ok(());
        }
        let Shared { limits, rings, .. } = &*self.shared;
        let in_service = limits.in_service();
        rings.reap(match self.policy.ring_full_reap {
            RingFullReap::OwnRing if in_service => Whose::One(self.vcpu),
            RingFullReap::OwnRing | RingFullReap::AllRings => Whose::All,
        })?;
        if in_service && limits.quota(self.vcpu).is_some() {
            self.due = limits.throttle(self.vcpu).into();
        }
        Ok(())
    }
}
