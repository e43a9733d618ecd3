//! A token bucket in pages: charged with exactly what was harvested, debt slept off, no gain to tune.
//!
//! ```text
//!   burst  ──┬── full: time that passes here is lost to the vCPU
//!            │   room for wake-ups that come late
//!   refill ──┼── a pause ends here: one `max_stall` above empty
//!            │   run
//!       0  ──┼── nothing left: pause
//!            ▼   debt: pages harvested beyond the grant
//! ```
//!
//! Its one parameter is the longest stall a user accepts. `refill` is what comes in during that time, so a vCPU that
//! stops on the page that spends its grant sleeps for `max_stall`; `burst` is twice that, because a sleep ends late and
//! what came in meanwhile must not be lost. Both are at least a page: below one page in `max_stall` the stall is
//! the time that a page takes.
//!
//! *Guarantee*: a vCPU that is charged for what it dirties, never dirties more than its last grant, and takes the pauses
//! asked for, dirties at most `quota x window + burst` in any window.

use std::time::Duration;

use super::tokens::{TokenRate, Tokens};
use crate::units::{Pages, Quota};

/// A clock that steps back by less than this was read by two threads in another order than they came here; by more, it
/// was set.
const REORDERED_WITHIN: Duration = Duration::from_secs(1);

/// The bucket of one vCPU.
#[derive(Clone, Debug)]
pub struct Budget {
    rate: TokenRate,
    max_stall: Duration,
    level: Tokens,
    /// Up to when `level` has been filled.
    filled_at: Duration,
}

impl Budget {
    /// A bucket that holds one refill at `now`.
    pub fn new(now: Duration, quota: Quota, max_stall: Duration) -> Self {
        let mut budget = Self {
            rate: TokenRate::of(quota),
            max_stall,
            level: Tokens::ZERO,
            filled_at: now,
        };
        budget.level = budget.refill_level();
        budget
    }

    /// Changes the quota. What came in until `now` came in at the old one; what the new burst has no room for is lost,
    /// and a debt keeps its length in time: pages dirtied at the old price are paid at the old price.
    ///
    /// Charge what was harvested before this, or it is paid at the new price.
    pub fn set_quota(&mut self, now: Duration, quota: Quota) {
        self.fill(now);
        let owed = self.rate.time_for(Tokens::ZERO.saturating_sub(self.level));
        self.rate = TokenRate::of(quota);
        if !owed.is_zero() {
            self.level = Tokens::ZERO.saturating_sub(self.rate.during(owed));
        }
        self.level = self.level.min(self.burst_level());
    }

    /// Takes `pages` that were harvested out of the bucket; returns the pause that is due, zero for none.
    pub fn charge(&mut self, now: Duration, pages: Pages) -> Duration {
        self.fill(now);
        self.level = self.level.saturating_sub(pages.into());
        self.pause(now)
    }

    /// The pause that is due at `now`: zero while a page is left, else until the refill is there. After a pause that
    /// was cut short this is what remains of it.
    pub fn pause(&mut self, now: Duration) -> Duration {
        self.fill(now);
        if self.level >= Tokens::ONE_PAGE {
            Duration::ZERO
        } else {
            self.rate.time_for(self.refill_level().saturating_sub(self.level))
        }
    }

    /// How many pages the vCPU may dirty before it is charged again; none while a pause is due.
    pub fn grant(&mut self, now: Duration) -> Pages {
        self.fill(now);
        self.level.whole_pages()
    }

    /// The most pages that a grant can be.
    pub fn burst(&self) -> Pages {
        self.burst_level().whole_pages()
    }

    /// The pages that a pause waits for: what a grant is when pauses end on time.
    pub fn refill(&self) -> Pages {
        self.refill_level().whole_pages()
    }

    fn fill(&mut self, now: Duration) {
        if let Some(span) = now.checked_sub(self.filled_at) {
            self.level = self
                .level
                .saturating_add(self.rate.during(span))
                .min(self.burst_level().max(self.level));
        } else if self.filled_at.abs_diff(now) < REORDERED_WITHIN {
            return;
        }
        self.filled_at = now;
    }

    fn refill_level(&self) -> Tokens {
        self.rate.during(self.max_stall).max(Tokens::ONE_PAGE)
    }

    fn burst_level(&self) -> Tokens {
        self.refill_level().saturating_add(self.refill_level())
    }
}
