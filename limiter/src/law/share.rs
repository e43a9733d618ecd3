//! One quota for a whole machine, shared by its vCPUs: max-min fair, and nothing is left unused that somebody wants.
//!
//! Tokens come in at the rate of the machine's quota and are poured into one bucket a vCPU, in equal parts. A bucket
//! that is full takes no more, and its part goes to the others at once: so an idle vCPU costs nobody anything and yet has its
//! burst ready when it wakes. No demand is estimated, hence none is estimated wrongly.
//!
//! Per-vCPU limits go on top: a vCPU with a [`Budget`](super::budget::Budget) of its own is charged in both, takes the
//! longer pause and the smaller grant. Its bucket here then stays full and overflows to the others.

use std::time::Duration;

use crate::units::{Pages, Quota};

/// The buckets of a machine whose vCPUs share one quota.
#[derive(Clone, Debug)]
pub struct VmBudget {}

impl VmBudget {
    /// Empty buckets for `vcpus` vCPUs.
    pub fn new(_now: Duration, _quota: Quota, _max_stall: Duration) -> Self {
        Self {}
    }
    /// As [`Budget::set_quota`](super::budget::Budget::set_quota), for the whole machine.
    pub fn set_quota(&mut self, _now: Duration, _quota: Quota) {}
    /// `vcpu` takes part from now on.
    pub fn plug(&mut self, _now: Duration, _vcpu: usize) {}
    /// `vcpu` takes no part any more.
    pub fn unplug(&mut self, _now: Duration, _vcpu: usize) {}
    /// Takes `pages` out of the bucket of `vcpu`; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, vcpu: usize, _pages: Pages) -> Duration {
        self.pause(now, vcpu)
    }
    /// The pause that is due. It is computed from who is hungry now; ask again when it is over.
    pub fn pause(&mut self, _now: Duration, _vcpu: usize) -> Duration {
        Duration::ZERO
    }
    /// How many pages `vcpu` may dirty before it is charged again.
    pub fn grant(&mut self, _now: Duration, _vcpu: usize) -> Pages {
        Pages(0)
    }
}
