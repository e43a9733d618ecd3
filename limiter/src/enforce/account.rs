//! What one vCPU may dirty under a law that counts pages: what its ring gave is charged, changes of limits are followed.

use std::{sync::Arc, time::Duration};

use crate::{
    Error,
    law::interim::Interim,
    shared::Shared,
    units::{Pages, Quota},
};

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
        self.shared.accounts().charge(now, self.vcpu, pages);
        if is_new {
            self.follow(now);
        }
        Ok(pages)
    }

    /// The pause that is due: zero if the vCPU may run.
    pub(super) fn pause(&mut self, now: Duration) -> Duration {
        self.shared.accounts().pause(now, self.vcpu)
    }

    /// How many pages it may dirty before it is settled again; `None` for any number.
    pub(super) fn grant(&mut self, now: Duration) -> Option<Pages> {
        self.shared.accounts().grant(now, self.vcpu)
    }

    /// When it is charged first in a run that begins `now`; `None` under a law that gains nothing by it.
    pub(super) fn interim(&self, now: Duration) -> Option<Interim> {
        self.shared.accounts().interim(now)
    }

    /// Whether any limit holds this vCPU.
    pub(super) fn is_limited(&self) -> bool {
        self.quota.is_some() || self.shared.limits.vm_quota().is_some()
    }

    fn follow(&mut self, now: Duration) {
        let limits = &self.shared.limits;
        let (quota, vm_quota) = (limits.quota(self.vcpu), limits.vm_quota());
        self.quota = quota;
        self.shared.accounts().follow(now, self.vcpu, quota, vm_quota);
    }
}
