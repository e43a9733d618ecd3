//! The commands: set, cancel, query, with QEMU's semantics.
//!
//! The first limit that is set starts the machinery (the governor's threads), the last one that is cancelled ends it.
//! An index is valid below the machine's maximum, plugged or not: a limit waits for its vCPU.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    governor::{Governor, Steering},
    law::{Law, LimiterKind, auto_converge::AutoConverge, depth::Depth},
    limit::{LimitError, LimitInfo, Which},
    shared::Shared,
    units::Quota,
};

/// The limiter of one machine.
pub struct DirtyLimit {
    shared: Arc<Shared>,
    kind: LimiterKind,
    period: Duration,
    steering: Arc<Mutex<Steering>>,
    /// Runs while a limit is in force.
    governor: Mutex<Option<Governor>>,
}

impl DirtyLimit {
    pub(crate) fn new(shared: Arc<Shared>, kind: LimiterKind, ring_entries: u32, period: Duration) -> Self {
        let steering = match kind.descriptor().law {
            Law::Periodic(make) => Steering::Periodic(make(ring_entries)),
            Law::AutoConverge => Steering::AutoConverge(AutoConverge::new()),
            Law::FullRing(_) | Law::Buckets | Law::Pool | Law::Nothing => Steering::Nothing,
        };
        Self {
            shared,
            kind,
            period,
            steering: Arc::new(Mutex::new(steering)),
            governor: Mutex::new(None),
        }
    }

    /// Limits one vCPU, or each one, to `quota`.
    ///
    /// # Errors
    /// [`LimitError::NoLimiter`] under limiter `none`, [`LimitError::BadIndex`] for a vCPU that there is no room for.
    pub fn set(&self, which: Which, quota: Quota) -> Result<(), LimitError> {
        self.refuse_none()?;
        let mut governor = self.governor();
        let in_service = self.shared.limits.set(which, Some(quota))?;
        self.follow(&mut governor, in_service);
        Ok(())
    }

    /// Limits all vCPUs together to `quota`, beside the limits that each has.
    ///
    /// # Errors
    /// [`LimitError::NoLimiter`] under limiter `none`, [`LimitError::NoVmLimit`] under one that limits vCPUs alone.
    pub fn set_vm(&self, quota: Quota) -> Result<(), LimitError> {
        self.refuse_none()?;
        if !self.kind.limits_whole_vm() {
            return Err(LimitError::NoVmLimit { limiter: self.kind });
        }
        let mut governor = self.governor();
        let in_service = self.shared.limits.set_vm(Some(quota));
        self.follow(&mut governor, in_service);
        Ok(())
    }

    /// Takes the limit of one vCPU, or of each one, away; one that sleeps for it wakes at once.
    ///
    /// # Errors
    /// [`LimitError::BadIndex`] for a vCPU that there is no room for.
    pub fn cancel(&self, which: Which) -> Result<(), LimitError> {
        let mut governor = self.governor();
        let in_service = self.shared.limits.set(which, None)?;
        self.follow(&mut governor, in_service);
        Ok(())
    }

    /// Takes the limit of the whole machine away.
    pub fn cancel_vm(&self) {
        let mut governor = self.governor();
        let in_service = self.shared.limits.set_vm(None);
        self.follow(&mut governor, in_service);
    }

    /// Changes the time's worth of quota that may be saved up. What was saved up beyond it is lost; grants that are out are
    /// replaced, so that it holds as soon as every vCPU has left the guest, which it is made to.
    ///
    /// # Errors
    /// [`LimitError::NoBurst`] under a limiter that saves nothing up.
    pub fn set_burst(&self, burst: Duration) -> Result<(), LimitError> {
        let refused = LimitError::NoBurst { limiter: self.kind };
        if !self.kind.saves_up() {
            return Err(refused);
        }
        let mut governor = self.governor();
        let mut accounts = self.shared.accounts();
        let depth = accounts.depth().ok_or(refused)?;
        accounts.set_depth(Depth { burst, ..depth });
        drop(accounts);
        self.shared.limits.touch();
        self.follow(&mut governor, self.shared.limits.in_service());
        Ok(())
    }

    /// The time's worth of quota that may be saved up; `None` of a limiter that saves nothing up.
    pub fn burst(&self) -> Option<Duration> {
        let depth = self.shared.accounts().depth().filter(|_| self.kind.saves_up())?;
        Some(depth.burst)
    }

    /// The vCPUs that have a limit, with the rate that was last read of each.
    pub fn query(&self) -> Vec<LimitInfo> {
        self.shared.limits.query()
    }

    /// The quota of the whole machine, if there is one.
    pub fn vm_quota(&self) -> Option<Quota> {
        self.shared.limits.vm_quota()
    }

    /// Which limiter it is.
    pub fn kind(&self) -> LimiterKind {
        self.kind
    }

    /// The machine goes: ends the machinery, limits or not.
    pub(crate) fn end(&self) {
        *self.governor() = None;
    }

    /// A vCPU was unplugged: what the law knows of it goes, its limit stays.
    pub(crate) fn unplugged(&self, vcpu: usize) {
        if let Steering::Periodic(law) = &mut *self.steering() {
            law.unplugged(vcpu);
            self.shared.limits.set_throttle(vcpu, law.throttle(vcpu));
        }
    }

    /// Starts or ends the machinery, and wakes vCPUs that sleep off a debt, to be asked again under the new limit.
    fn follow(&self, governor: &mut Option<Governor>, in_service: bool) {
        // In QEMU a new limit waits for the sleep under the old one, and so it does under QEMU's laws.
        let is_budget = matches!(*self.steering(), Steering::Nothing);
        let limits = &self.shared.limits;
        for (index, vcpu) in self.shared.vcpus.iter().enumerate() {
            if is_budget || limits.quota(index).is_none() {
                vcpu.control.wake();
            }
        }
        if in_service && governor.is_none() {
            *governor = Some(Governor::start(
                &self.shared,
                &self.steering,
                self.kind.descriptor().policy.threads,
                self.period,
            ));
        } else if !in_service && governor.take().is_some() {
            match &mut *self.steering() {
                Steering::Periodic(law) => law.ended(),
                Steering::AutoConverge(law) => law.ended(),
                Steering::Nothing => {}
            }
        }
    }

    fn refuse_none(&self) -> Result<(), LimitError> {
        if matches!(self.kind.descriptor().law, Law::Nothing) {
            Err(LimitError::NoLimiter)
        } else {
            Ok(())
        }
    }

    fn steering(&self) -> MutexGuard<'_, Steering> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn governor(&self) -> MutexGuard<'_, Option<Governor>> {
        self.governor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
