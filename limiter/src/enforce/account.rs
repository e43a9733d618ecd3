//! What a vCPU may dirty, whichever of the page-counting laws says so: its own budget, its part of the machine's, or
//! the dirty quota of the unmerged kernel series.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    kvm::Error,
    law::{budget::Budget, dirty_quota::DirtyQuota, share::VmBudget},
    shared::Shared,
    units::{Pages, Quota},
};

/// What the vCPUs of a machine draw from together.
pub(crate) enum Common {
    /// Nothing but the quota of the whole machine, while there is one.
    Vm(Option<VmBudget>),
    /// The intervals and the pool of the dirty quota.
    Pool(DirtyQuota),
}

/// The account of one vCPU. It charges every page harvested from the vCPU's ring, whoever harvested it.
pub(super) struct Account {
    shared: Arc<Shared>,
    vcpu: usize,
    max_stall: Duration,
    /// Of the limits, as last looked up.
    generation: Option<u64>,
    own: Option<Budget>,
    /// The quota of `own`, or of the vCPU's account in the pool.
    quota: Option<Quota>,
    charged: Pages,
}

impl Account {
    pub(super) fn new(shared: Arc<Shared>, vcpu: usize, max_stall: Duration) -> Self {
        Self {
            shared,
            vcpu,
            max_stall,
            generation: None,
            own: None,
            quota: None,
            charged: Pages(0),
        }
    }

    /// Charges what was harvested since the last call, then follows changes of the limits. The vCPU is out of the guest.
    ///
    /// Where there was a change, `harvest` is called first, to bring in all that waits in the vCPU's ring: it was dirtied
    /// under the old limits, and is charged to them alone. An unlimited vCPU may have filled its whole ring; taken for
    /// a debt under a new quota, that would stop it for seconds.
    pub(super) fn settle(
        &mut self,
        now: Duration,
        harvest: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Pages, Error> {
        // Looked up before the harvest: a change that comes between the two finds the ring empty as well.
        let generation = self.shared.limits.generation();
        let is_new = self.generation.replace(generation) != Some(generation);
        if is_new {
            harvest()?;
        }
        let harvested = self.shared.rings.harvested(self.vcpu);
        let pages = Pages(harvested.0 - self.charged.0);
        self.charged = harvested;
        if let Some(own) = &mut self.own {
            own.charge(now, pages);
        }
        match &mut *self.common() {
            Common::Vm(Some(budget)) => drop(budget.charge(now, self.vcpu, pages)),
            Common::Vm(None) => {}
            Common::Pool(pool) => drop(pool.charge(now, self.vcpu, pages)),
        }
        if is_new {
            self.follow(now);
        }
        Ok(pages)
    }

    /// The pause that is due: zero if the vCPU may run.
    pub(super) fn pause(&mut self, now: Duration) -> Duration {
        let own = self.own.as_mut().map_or(Duration::ZERO, |own| own.pause(now));
        let common = match &mut *self.common() {
            Common::Vm(Some(budget)) => budget.pause(now, self.vcpu),
            Common::Vm(None) => Duration::ZERO,
            Common::Pool(pool) => pool.pause(now, self.vcpu),
        };
        own.max(common)
    }

    /// How many pages it may dirty before it is settled again; `None` for any number.
    pub(super) fn grant(&mut self, now: Duration) -> Option<Pages> {
        let own = self.own.as_mut().map(|own| own.grant(now));
        let common = match &mut *self.common() {
            Common::Vm(budget) => budget.as_mut().and_then(|budget| budget.grant(now, self.vcpu)),
            Common::Pool(pool) => pool.grant(self.vcpu),
        };
        [own, common].into_iter().flatten().min()
    }

    /// Whether any limit holds this vCPU.
    pub(super) fn is_limited(&self) -> bool {
        self.quota.is_some() || self.shared.limits.vm_quota().is_some()
    }

    fn follow(&mut self, now: Duration) {
        let limits = &self.shared.limits;
        let quota = limits.quota(self.vcpu);
        let changed = self.quota != quota;
        self.quota = quota;
        let vm_quota = limits.vm_quota();
        let mut common = self.shared.common.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *common {
            Common::Pool(pool) => {
                if changed {
                    pool.set_quota(now, self.vcpu, quota);
                }
            }
            Common::Vm(budget) => {
                follow_vm(budget, now, vm_quota, self.max_stall);
                if let Some(budget) = budget {
                    budget.join(now, self.vcpu);
                }
                match (&mut self.own, quota) {
                    (_, None) => self.own = None,
                    (Some(own), Some(quota)) if changed => own.set_quota(now, quota),
                    (Some(_), Some(_)) => {}
                    (own @ None, Some(quota)) => *own = Some(Budget::new(now, quota, self.max_stall)),
                }
            }
        }
    }

    fn common(&self) -> MutexGuard<'_, Common> {
        // Every law leaves its accounts consistent after each call: a panic elsewhere takes nothing from them.
        self.shared.common.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn follow_vm(budget: &mut Option<VmBudget>, now: Duration, quota: Option<Quota>, max_stall: Duration) {
    match (budget.as_mut(), quota) {
        (_, None) => *budget = None,
        (Some(budget), Some(quota)) => budget.set_quota(now, quota),
        (None, Some(quota)) => *budget = Some(VmBudget::new(now, quota, max_stall)),
    }
}

/// What the vCPUs of a machine under `kind` have in common.
pub(crate) fn common(kind: crate::law::LimiterKind) -> Mutex<Common> {
    Mutex::new(match kind {
        crate::law::LimiterKind::DirtyQuota => Common::Pool(DirtyQuota::new(Duration::ZERO)),
        _ => Common::Vm(None),
    })
}
