//! What each vCPU of a machine may dirty: a bucket of its own, and its part of the machine's.
//!
//! A vCPU under a limit of its own and one of the machine is charged in both, takes the longer pause and the smaller
//! grant. Its part of the machine's quota that it may not use then flows to the others, see [`share`](super::share).
//!
//! One life of a vCPU, whoever enforces it:
//!
//! ```text
//!   follow ──▶ pause ──▶ grant ──▶ the vCPU dirties ──▶ charge ──▶ pause ...
//!     ▲                    ▲                              │
//!     │ limits changed     └── on its way: see `interim` ─┘
//! ```
//!
//! **Guarantee.** vCPUs that are charged for what they dirty, take the pauses and never dirty more than their last grant
//! keep to the bound of each [`Budget`] and of the [`VmBudget`]: at most `quota x window + burst` in any window. Where pages
//! are reported in batches, as by Intel's PML, a grant is overdrawn by less than a batch: the bound is that much higher per vCPU.

use std::{collections::BTreeMap, time::Duration};

use super::{budget::Budget, depth::Depth, interim::Interim, share::VmBudget};
use crate::units::{Pages, Quota};

/// The buckets of a machine's vCPUs.
#[derive(Clone, Debug)]
pub struct Accounts {
    depth: Depth,
    own: BTreeMap<usize, Budget>,
    vm: Option<VmBudget>,
}

impl Accounts {
    /// Nothing is limited. All buckets will be of this `depth`.
    pub fn new(depth: Depth) -> Self {
        Self {
            depth,
            own: BTreeMap::new(),
            vm: None,
        }
    }

    /// How deep the buckets are.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Changes how deep the buckets are: that of a vCPU when it is next told to [`follow`](Self::follow), because it must
    /// be charged first for what it dirtied out of a deeper one.
    pub fn set_depth(&mut self, depth: Depth) {
        self.depth = depth;
    }

    /// From now on `vcpu` is under `quota`, and under its part of the machine's `vm_quota`; `None` for no limit.
    ///
    /// [`charge`](Self::charge) it before for all that it has dirtied so far, which it did under the old limits: under the
    /// new ones it begins with what its buckets hold, or with a refill where it had none.
    pub fn follow(&mut self, now: Duration, vcpu: usize, quota: Option<Quota>, vm_quota: Option<Quota>) {
        match (&mut self.vm, vm_quota) {
            (_, None) => self.vm = None,
            (Some(vm), Some(quota)) => {
                vm.set_quota(now, quota);
                vm.set_depth(now, self.depth);
            }
            (vm @ None, Some(quota)) => *vm = Some(VmBudget::new(now, quota, self.depth)),
        }
        if let Some(vm) = &mut self.vm {
            vm.join(now, vcpu);
        }
        match (self.own.get_mut(&vcpu), quota) {
            (_, None) => drop(self.own.remove(&vcpu)),
            (Some(own), Some(quota)) => {
                own.set_quota(now, quota);
                own.set_depth(now, self.depth);
            }
            (None, Some(quota)) => drop(self.own.insert(vcpu, Budget::new(now, quota, self.depth))),
        }
    }

    /// `vcpu` is gone: its part of the machine's quota goes to the others.
    pub fn leave(&mut self, now: Duration, vcpu: usize) {
        self.own.remove(&vcpu);
        if let Some(vm) = &mut self.vm {
            vm.leave(now, vcpu);
        }
    }

    /// Takes `pages` that `vcpu` dirtied out of its buckets.
    pub fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) {
        if let Some(own) = self.own.get_mut(&vcpu) {
            own.charge(now, pages);
        }
        if let Some(vm) = &mut self.vm {
            vm.charge(now, vcpu, pages);
        }
    }

    /// The pause of `vcpu` that is due, zero for none. Ask again when it is over: others may have drawn on the machine's
    /// quota meanwhile.
    pub fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        let own = self.own.get_mut(&vcpu).map(|own| own.pause(now));
        let vm = self.vm.as_mut().map(|vm| vm.pause(now, vcpu));
        own.into_iter().chain(vm).max().unwrap_or_default()
    }

    /// How many pages `vcpu` may dirty until it is charged again; `None` for any number.
    pub fn grant(&mut self, now: Duration, vcpu: usize) -> Option<Pages> {
        let own = self.own.get_mut(&vcpu).map(|own| own.grant(now));
        let vm = self.vm.as_mut().and_then(|vm| vm.grant(now, vcpu));
        own.into_iter().chain(vm).min()
    }

    /// When a vCPU that runs from `now` on is charged first.
    pub fn interim(&self, now: Duration) -> Interim {
        Interim::first(now, self.depth.burst)
    }
}

#[cfg(test)]
mod batches;
#[cfg(test)]
mod tests;
