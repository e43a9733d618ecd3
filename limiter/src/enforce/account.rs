//! What a vCPU may dirty, whichever of the page-counting laws says so: the token buckets or the dirty quota of the
//! unmerged kernel series.

use std::{sync::Arc, time::Duration};

use crate::{
    Error, LimiterSpec,
    law::{Law, accounts::Accounts, dirty_quota::DirtyQuota, interim::Interim},
    shared::Shared,
    units::{Pages, Quota},
};

/// The accounts of all vCPUs of a machine.
pub(crate) enum Common {
    /// Token buckets, each vCPU's own and the machine's.
    Buckets(Accounts),
    /// The intervals and the pool of the dirty quota.
    Pool(DirtyQuota),
}

impl Common {
    /// Those of a machine under `limiter`; no vCPU is limited.
    pub(crate) fn new(limiter: LimiterSpec) -> Self {
        match limiter.kind.descriptor().law {
            Law::Pool => Self::Pool(DirtyQuota::new(Duration::ZERO)),
            _ => Self::Buckets(Accounts::new(limiter.depth())),
        }
    }
}

/// The account of one vCPU. It charges every page harvested from the vCPU's ring, whoever harvested it.
pub(super) struct Account {
    shared: Arc<Shared>,
    vcpu: usize,
    /// Of the limits, as last looked up.
    generation: Option<u64>,
    /// Its own limit, as last looked up.
    quota: Option<Quota>,
    charged: Pages,
}

impl Account {
    pub(super) fn new(shared: Arc<Shared>, vcpu: usize) -> Self {
        Self {
            shared,
            vcpu,
            generation: None,
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
        match &mut *self.shared.common() {
            Common::Buckets(accounts) => accounts.charge(now, self.vcpu, pages),
            Common::Pool(pool) => drop(pool.charge(now, self.vcpu, pages)),
        }
        if is_new {
            self.follow(now);
        }
        Ok(pages)
    }

    /// The pause that is due: zero if the vCPU may run.
    pub(super) fn pause(&mut self, now: Duration) -> Duration {
        match &mut *self.shared.common() {
            Common::Buckets(accounts) => accounts.pause(now, self.vcpu),
            Common::Pool(pool) => pool.pause(now, self.vcpu),
        }
    }

    /// How many pages it may dirty before it is settled again; `None` for any number.
    pub(super) fn grant(&mut self, now: Duration) -> Option<Pages> {
        match &mut *self.shared.common() {
            Common::Buckets(accounts) => accounts.grant(now, self.vcpu),
            Common::Pool(pool) => pool.grant(self.vcpu),
        }
    }

    /// When it is charged first in a run that begins `now`; `None` under a law that gains nothing by it.
    pub(super) fn interim(&self, now: Duration) -> Option<Interim> {
        match &*self.shared.common() {
            Common::Buckets(accounts) => Some(accounts.interim(now)),
            Common::Pool(_) => None,
        }
    }

    /// Whether any limit holds this vCPU.
    pub(super) fn is_limited(&self) -> bool {
        self.quota.is_some() || self.shared.limits.vm_quota().is_some()
    }

    fn follow(&mut self, now: Duration) {
        let limits = &self.shared.limits;
        let (quota, vm_quota) = (limits.quota(self.vcpu), limits.vm_quota());
        let changed = self.quota != quota;
        self.quota = quota;
        match &mut *self.shared.common() {
            Common::Buckets(accounts) => accounts.follow(now, self.vcpu, quota, vm_quota),
            Common::Pool(pool) if changed => pool.set_quota(now, self.vcpu, quota),
            Common::Pool(_) => {}
        }
    }
}
