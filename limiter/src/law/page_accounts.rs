//! What a VM's vCPUs may dirty, whichever of the page-counting laws says so: token buckets, or the dirty quota of the
//! unmerged kernel series.

use std::time::Duration;

use super::{
    LimiterKind, accounts::Accounts, depth::Depth, descriptor::Law, dirty_quota::DirtyQuota, interim::Interim,
};
use crate::units::{Pages, Quota};

/// The accounts of all vCPUs of a VM.
pub(crate) enum PageAccounts {
    /// Token buckets, each vCPU's own and the VM's.
    Buckets(Accounts),
    /// The intervals and the pool of the dirty quota.
    Pool(DirtyQuota),
}

impl PageAccounts {
    /// Those of a VM under `limiter`, buckets of `depth`; no vCPU is limited.
    pub(crate) fn new(limiter: LimiterKind, depth: Depth) -> Self {
        match limiter.descriptor().law {
            Law::Pool => Self::Pool(DirtyQuota::new(Duration::ZERO)),
            _ => Self::Buckets(Accounts::new(depth)),
        }
    }

    /// `vcpu` has dirtied `pages`.
    pub(crate) fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) {
        match self {
            Self::Buckets(accounts) => accounts.charge(now, vcpu, pages),
            Self::Pool(pool) => drop(pool.charge(now, vcpu, pages)),
        }
    }

    /// The pause that is due: zero if the vCPU may run.
    pub(crate) fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        match self {
            Self::Buckets(accounts) => accounts.pause(now, vcpu),
            Self::Pool(pool) => pool.pause(now, vcpu),
        }
    }

    /// How many pages it may dirty before it is charged again; `None` for any number.
    pub(crate) fn grant(&mut self, now: Duration, vcpu: usize) -> Option<Pages> {
        match self {
            Self::Buckets(accounts) => accounts.grant(now, vcpu),
            Self::Pool(pool) => pool.grant(vcpu),
        }
    }

    /// When a vCPU is charged first in a run that begins `now`; `None` under a law that gains nothing by it.
    pub(crate) fn interim(&self, now: Duration) -> Option<Interim> {
        match self {
            Self::Buckets(accounts) => Some(accounts.interim(now)),
            Self::Pool(_) => None,
        }
    }

    /// Takes the limits of `vcpu` and of the VM as they are now.
    pub(crate) fn follow(&mut self, now: Duration, vcpu: usize, quota: Option<Quota>, vm_quota: Option<Quota>) {
        match self {
            Self::Buckets(accounts) => accounts.follow(now, vcpu, quota, vm_quota),
            Self::Pool(pool) => pool.set_quota(now, vcpu, quota),
        }
    }

    /// Of what the buckets are made; `None` of a law that has none.
    pub(crate) fn depth(&self) -> Option<Depth> {
        match self {
            Self::Buckets(accounts) => Some(accounts.depth()),
            Self::Pool(_) => None,
        }
    }

    /// Makes the buckets of `depth`, if there are any.
    pub(crate) fn set_depth(&mut self, depth: Depth) {
        if let Self::Buckets(accounts) = self {
            accounts.set_depth(depth);
        }
    }
}
