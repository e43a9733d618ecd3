//! The limits as they were asked for, of vCPUs that are there and of those that come later.

use std::collections::BTreeMap;

use dirtyrig_limiter::{limit::Which, units::Quota};

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
}
