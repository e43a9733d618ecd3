//! The dirty quota of the unmerged kernel series, as its VMM side has it: pages for each interval, and a common pool.
//!
//! A vCPU that has spent its pages claims those of its next interval, of 10 ms, once the present one is over. The time
//! for which it claimed none goes to a pool as the pages that it would have been good for. Until its interval is over
//! a vCPU may draw on the pool instead, an interval's worth at a time, first come, first served; if the pool is empty it
//! sleeps. One that has dirtied more than it had draws nothing and sleeps until its intervals have paid for it.
//!
//! Two traits of the series are kept and worth knowing. Nothing bounds the pool, so a vCPU that was idle for a minute
//! leaves a minute's worth of pages to whoever comes first. And a quota is not held by a vCPU but by all together: one
//! may dirty at many times its own for as long as the pool lasts.
//!
//! Where less than a page comes in an interval (below 0.39 MiB/s) the fractions add up over intervals; the series
//! rounds such a quota to nothing.

use std::time::Duration;

use super::{
    descriptor::{Bounds, Descriptor, Enforced, Law},
    periodic::Policy,
    tokens::{FilledAt, TokenRate, Tokens},
};
use crate::units::{Pages, Quota};

/// Length of an interval.
pub const INTERVAL: Duration = Duration::from_millis(10);

pub(super) const DIRTY_QUOTA: Descriptor = Descriptor {
    name: "dirty-quota",
    description: "the unmerged kernel series: pages for each 10 ms, what is left goes to a common pool",
    law: Law::Pool,
    enforced: Enforced::ByDeadline,
    policy: Policy::UNLIMITED,
    bounds: Bounds::NONE,
    limits_whole_vm: false,
};

/// The accounts of a machine's vCPUs and their pool.
#[derive(Clone, Debug)]
pub struct DirtyQuota {
    /// By vCPU index; `None` for one without a limit.
    accounts: Vec<Option<Account>>,
    pool: Tokens,
    /// Time that the clock has gone forward by, which is the time that intervals are counted in.
    elapsed: Duration,
    clock: FilledAt,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    rate: TokenRate,
    left: Tokens,
    interval_ends: Duration,
}

impl DirtyQuota {
    /// No vCPU has a limit.
    pub fn new(now: Duration) -> Self {
        Self {
            accounts: Vec::new(),
            pool: Tokens::ZERO,
            elapsed: Duration::ZERO,
            clock: FilledAt::new(now),
        }
    }

    /// Limits `vcpu`, whose first interval then begins, or with `None` frees it. A vCPU that has a limit keeps its
    /// interval, and a debt its length in time; the limit that it has already changes nothing.
    pub fn set_quota(&mut self, now: Duration, vcpu: usize, quota: Option<Quota>) {
        self.advance(now);
        if self.accounts.len() <= vcpu {
            self.accounts.resize(vcpu + 1, None);
        }
        let account = &mut self.accounts[vcpu];
        *account = quota.map(|quota| {
            let rate = TokenRate::of(quota);
            match *account {
                Some(old) if old.rate == rate => old,
                Some(old) => Account {
                    rate,
                    left: old.left.repriced(old.rate, rate).min(rate.during(INTERVAL)),
                    interval_ends: old.interval_ends,
                },
                None => Account {
                    rate,
                    left: rate.during(INTERVAL),
                    interval_ends: self.elapsed + INTERVAL,
                },
            }
        });
        if self.accounts.iter().all(Option::is_none) {
            self.pool = Tokens::ZERO;
        }
    }

    /// Takes `pages` out of the account of `vcpu`; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) -> Duration {
        if let Some(Some(account)) = self.accounts.get_mut(vcpu) {
            account.left = account.left.minus(pages.into());
        }
        self.pause(now, vcpu)
    }

    /// The pause that is due at `now`, zero for none. Ask again when it is over: it lasts to the end of an interval, and
    /// the next may not be enough.
    pub fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        self.advance(now);
        let Some(Some(account)) = self.accounts.get_mut(vcpu) else {
            return Duration::ZERO;
        };
        let worth = account.rate.during(INTERVAL);
        if account.left < Tokens::ONE_PAGE && self.elapsed >= account.interval_ends {
            let unclaimed = account.rate.during(self.elapsed.saturating_sub(account.interval_ends));
            self.pool = self.pool.plus(unclaimed);
            account.left = account.left.plus(worth);
            account.interval_ends = self.elapsed + INTERVAL;
        }
        if account.left < Tokens::ONE_PAGE && account.left >= Tokens::ZERO {
            let drawn = self.pool.min(worth);
            self.pool = self.pool.minus(drawn);
            account.left = account.left.plus(drawn);
        }
        if account.left < Tokens::ONE_PAGE {
            account.interval_ends.saturating_sub(self.elapsed)
        } else {
            Duration::ZERO
        }
    }

    /// How many pages `vcpu` may dirty before it is charged again; `None` for any number. Those of a new interval are
    /// there once [`pause`](Self::pause) has said that no pause is due.
    pub fn grant(&self, vcpu: usize) -> Option<Pages> {
        let account = self.accounts.get(vcpu)?.as_ref()?;
        Some(account.left.whole_pages())
    }

    fn advance(&mut self, now: Duration) {
        self.elapsed += self.clock.advance(now);
    }
}

#[cfg(test)]
mod tests;
