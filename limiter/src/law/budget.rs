//! A token bucket in pages: charged with exactly what was harvested, debt slept off, no gain to tune.
//!
//! How deep it is, and how long pauses are, says its [`Depth`]. A guest that writes and waits saves up while it waits, and
//! gets its quota as long as it waits for less than `burst`.
//!
//! **Guarantee.** A vCPU that is charged for what it dirties, takes the pauses and never dirties more than its last
//! grant dirties at most `quota x window + burst` in any window. One that overruns its grant by `n` pages once dirties
//! `n` more once: the overrun is a debt that the next pause pays.

use std::time::Duration;

use super::{
    depth::{Depth, resume_level},
    descriptor::{Bounds, Descriptor, Enforced, Law},
    periodic::Policy,
    tokens::{FilledAt, TokenRate, Tokens},
};
use crate::units::{Pages, Quota};

pub(super) const BUDGET: Descriptor = Descriptor {
    name: "budget",
    description: "token bucket in pages; a timer takes the vCPU out of the guest to be charged",
    law: Law::Buckets,
    enforced: Enforced::ByDeadline,
    policy: Policy::UNLIMITED,
    bounds: Bounds::NONE,
    limits_whole_vm: true,
};

pub(super) const BUDGET_EBPF: Descriptor = Descriptor {
    name: "budget-ebpf",
    description: "token bucket in pages; an eBPF program stops the vCPU on the page that spends it",
    law: Law::Buckets,
    enforced: Enforced::ByPageCounter,
    policy: Policy::UNLIMITED,
    bounds: Bounds::NONE,
    limits_whole_vm: true,
};

pub(super) const BALLAST: Descriptor = Descriptor {
    name: "ballast",
    description: "token bucket in pages; entries held back make the ring full after as many as are wanted",
    law: Law::Buckets,
    enforced: Enforced::ByHeldEntries,
    policy: Policy::UNLIMITED,
    bounds: Bounds::NONE,
    limits_whole_vm: true,
};

/// The bucket of one vCPU.
#[derive(Clone, Debug)]
pub struct Budget {
    rate: TokenRate,
    depth: Depth,
    level: Tokens,
    filled_at: FilledAt,
}

impl Budget {
    /// A bucket that holds one refill at `now`.
    pub fn new(now: Duration, quota: Quota, depth: Depth) -> Self {
        let rate = TokenRate::of(quota);
        Self {
            rate,
            depth,
            level: depth.refill(rate, 1),
            filled_at: FilledAt::new(now),
        }
    }

    /// Changes the quota. What came in until `now` came in at the old one; what the new burst has no room for is lost,
    /// and a debt keeps its length in time: what was dirtied at the old price is paid at the old price.
    ///
    /// Harvest and charge first: what is charged later is paid at the new price.
    pub fn set_quota(&mut self, now: Duration, quota: Quota) {
        self.fill(now);
        let rate = TokenRate::of(quota);
        if rate != self.rate {
            self.level = self.level.repriced(self.rate, rate);
            self.rate = rate;
            self.level = self.level.min(self.burst_level());
        }
    }

    /// Changes how much may be saved up, and how long pauses are. What a shallower bucket has no room for is lost.
    pub fn set_depth(&mut self, now: Duration, depth: Depth) {
        self.fill(now);
        self.depth = depth;
        self.level = self.level.min(self.burst_level());
    }

    /// Takes `pages` that were harvested out of the bucket; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, pages: Pages) -> Duration {
        // Filled first, as if all pages came at the end of the run: when they came is not known, and had they come
        // earlier the guarantee would hold as well.
        self.fill(now);
        self.level = self.level.minus(pages.into());
        self.pause(now)
    }

    /// The pause that is due at `now`, zero for none. After a pause that was cut short this is what remains of it.
    pub fn pause(&mut self, now: Duration) -> Duration {
        self.fill(now);
        let refill = self.refill_level();
        if self.level >= resume_level(refill) {
            Duration::ZERO
        } else {
            self.rate.time_for(refill.minus(self.level))
        }
    }

    /// How many pages the vCPU may dirty before it is charged again.
    pub fn grant(&mut self, now: Duration) -> Pages {
        self.fill(now);
        self.level.whole_pages()
    }

    /// The largest grant there can be.
    pub fn burst(&self) -> Pages {
        self.burst_level().whole_pages()
    }

    /// The grant after a pause that ended on time.
    pub fn refill(&self) -> Pages {
        self.refill_level().whole_pages()
    }

    fn fill(&mut self, now: Duration) {
        let income = self.rate.during(self.filled_at.advance(now));
        self.level = self.level.plus(income).min(self.burst_level());
    }

    fn refill_level(&self) -> Tokens {
        self.depth.refill(self.rate, 1)
    }

    fn burst_level(&self) -> Tokens {
        self.depth.burst(self.rate, 1)
    }
}

#[cfg(test)]
mod guest_tests;
#[cfg(test)]
mod tests;
