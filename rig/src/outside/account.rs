//! What each vCPU may dirty: the limits as they were asked for, and the buckets that hold to them.

use std::{collections::BTreeMap, time::Duration};

use dirtyrig_limiter::{
    law::{budget::Budget, interim::Interim, share::VmBudget},
    limit::Which,
    units::{Pages, Quota},
};

/// The limits in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits {
    /// Every vCPU's that has no own entry, also of one that is plugged later.
    everyone: Option<Quota>,
    own: BTreeMap<usize, Option<Quota>>,
    /// All vCPUs' together.
    pub(super) vm: Option<Quota>,
}

impl Limits {
    /// Sets, or with `None` cancels.
    pub(super) fn set(&mut self, which: Which, quota: Option<Quota>) {
        match which {
            Which::All => {
                self.everyone = quota;
                self.own.clear();
            }
            Which::One(vcpu) => {
                self.own.insert(vcpu, quota);
            }
        }
    }

    /// The vCPU's own limit.
    pub(super) fn quota(&self, vcpu: usize) -> Option<Quota> {
        self.own.get(&vcpu).copied().unwrap_or(self.everyone)
    }

    /// Whether anything limits the vCPU.
    pub(super) fn holds(&self, vcpu: usize) -> bool {
        self.vm.is_some() || self.quota(vcpu).is_some()
    }
}

/// When a vCPU that runs is charged next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterimCharge {
    pub(super) due: Duration,
    interim: Interim,
}

impl InterimCharge {
    /// The one after a charge at `now` in the same run.
    pub(super) fn next(self, now: Duration) -> Self {
        Self::after(now, self.interim.next())
    }

    fn after(now: Duration, interim: Interim) -> Self {
        Self {
            due: now + interim.gap(),
            interim,
        }
    }
}

/// The buckets. A vCPU under a limit of its own and one of the VM is charged in both, takes the longer pause and the
/// smaller grant.
#[derive(Debug)]
pub(super) struct Accounts {
    max_stall: Duration,
    own: BTreeMap<usize, Budget>,
    vm: Option<VmBudget>,
}

impl Accounts {
    pub(super) fn new(max_stall: Duration) -> Self {
        Self {
            max_stall,
            own: BTreeMap::new(),
            vm: None,
        }
    }

    /// Takes `pages` that the vCPU dirtied out of its buckets.
    pub(super) fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) {
        if let Some(own) = self.own.get_mut(&vcpu) {
            own.charge(now, pages);
        }
        if let Some(vm) = &mut self.vm {
            vm.charge(now, vcpu, pages);
        }
    }

    /// Follows a change of the limits of the VM; charge every vCPU first.
    pub(super) fn follow_vm(&mut self, now: Duration, quota: Option<Quota>) {
        match (&mut self.vm, quota) {
            (_, None) => self.vm = None,
            (Some(vm), Some(quota)) => vm.set_quota(now, quota),
            (vm @ None, Some(quota)) => *vm = Some(VmBudget::new(now, quota, self.max_stall)),
        }
    }

    /// Follows a change of the limit of a vCPU that is there; charge it first.
    pub(super) fn follow(&mut self, now: Duration, vcpu: usize, quota: Option<Quota>) {
        match (self.own.get_mut(&vcpu), quota) {
            (_, None) => drop(self.own.remove(&vcpu)),
            (Some(own), Some(quota)) => own.set_quota(now, quota),
            (None, Some(quota)) => drop(self.own.insert(vcpu, Budget::new(now, quota, self.max_stall))),
        }
        if let Some(vm) = &mut self.vm {
            vm.join(now, vcpu);
        }
    }

    /// The vCPU is gone: its part of the VM's quota goes to the others.
    pub(super) fn leave(&mut self, now: Duration, vcpu: usize) {
        self.own.remove(&vcpu);
        if let Some(vm) = &mut self.vm {
            vm.leave(now, vcpu);
        }
    }

    /// The first charge of a vCPU that runs from `now` on.
    pub(super) fn interim(&self, now: Duration) -> InterimCharge {
        InterimCharge::after(now, Interim::first(self.max_stall))
    }

    /// The pause that is due, zero for none.
    pub(super) fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        let own = self.own.get_mut(&vcpu).map(|own| own.pause(now));
        let vm = self.vm.as_mut().map(|vm| vm.pause(now, vcpu));
        own.into_iter().chain(vm).max().unwrap_or_default()
    }

    /// How many pages the vCPU may dirty until it is charged again; `None` for any number.
    pub(super) fn grant(&mut self, now: Duration, vcpu: usize) -> Option<Pages> {
        let own = self.own.get_mut(&vcpu).map(|own| own.grant(now));
        let vm = self.vm.as_mut().and_then(|vm| vm.grant(now, vcpu));
        own.into_iter().chain(vm).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(mib_per_sec: f64) -> Quota {
        Quota::new(mib_per_sec).expect("a quota")
    }

    #[test]
    fn a_limit_for_all_is_for_those_that_come_later_too() {
        let mut limits = Limits::default();
        assert!(!limits.holds(7));
        limits.set(Which::All, Some(quota(25.0)));
        limits.set(Which::One(1), Some(quota(5.0)));
        limits.set(Which::One(2), None);
        assert_eq!(
            [0, 1, 2, 7].map(|vcpu| limits.quota(vcpu)),
            [Some(quota(25.0)), Some(quota(5.0)), None, Some(quota(25.0))]
        );
        limits.set(Which::All, None);
        assert!((0..8).all(|vcpu| !limits.holds(vcpu)), "a cancel for all cancels each");
        limits.vm = Some(quota(1.0));
        assert!(limits.holds(3));
    }

    #[test]
    fn who_is_under_two_limits_keeps_to_both() {
        let now = Duration::ZERO;
        let mut accounts = Accounts::new(Duration::from_millis(5));
        assert_eq!(accounts.grant(now, 0), None, "unlimited");
        accounts.follow_vm(now, Some(quota(25.0)));
        accounts.follow(now, 0, Some(quota(500.0)));
        let later = Duration::from_millis(5);
        // What came in for the whole VM in 5 ms at 25 MiB/s.
        assert_eq!(accounts.grant(later, 0), Some(Pages(32)));
        assert_eq!(accounts.pause(later, 0), Duration::ZERO);
        accounts.charge(later, 0, Pages(32));
        assert_eq!(accounts.pause(later, 0), Duration::from_millis(5));
        accounts.follow_vm(later, None);
        assert_eq!(
            accounts.pause(later, 0),
            Duration::ZERO,
            "its own bucket is far from empty"
        );
        accounts.follow(later, 0, None);
        assert_eq!(accounts.grant(later, 0), None);
    }
}
