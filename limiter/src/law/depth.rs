//! How a bucket of tokens is used: what a pause waits for, and how much may be saved up.
//!
//! ```text
//!   burst       ──┬── full: what comes in now is lost to the vCPU
//!                 │   what a guest saved up while it wrote less than its quota; room for runs that take long and
//!                 │   wake-ups that come late
//!   refill      ──┼── a pause ends here
//!                 │   run
//!   refill / 2  ──┼── below: pause
//!                 │
//!       0       ──┼── below: debt, pages dirtied beyond the grant
//! ```
//!
//! Two times say how much that is at any quota. *Refill* is what comes in during `max_stall`, so that a vCPU which stops on
//! the page that spends its grant pauses for `max_stall`, however much it had saved up. *Burst* is what comes in during
//! `burst`. Pausing from half a refill on keeps grants from shrinking to a page each where the quota is close to what the
//! vCPU does anyway: there are at most `2 / max_stall` grants a second.
//!
//! A refill is never more than half of the burst, so that what comes in while a pause ends late is not lost, and neither
//! is less than a page: where a page takes longer than `max_stall` to come in, a pause takes that long.

use std::time::Duration;

use super::tokens::{TokenRate, Tokens};

/// The two times that a bucket is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The longest pause that is asked for at once by a vCPU without a debt.
    pub max_stall: Duration,
    /// The time's worth of quota that may be saved up.
    pub burst: Duration,
}

impl Depth {
    /// What a pause waits for, of one of the `parts` that share a quota of `rate`.
    pub(super) fn refill(self, rate: TokenRate, parts: usize) -> Tokens {
        let whole = rate.during(self.max_stall.min(self.burst / 2));
        whole.divided(parts).0.max(Tokens::ONE_PAGE)
    }

    /// What may be saved up at `rate`, by all parts together.
    pub(super) fn burst(self, rate: TokenRate, parts: usize) -> Tokens {
        rate.during(self.burst).max(self.refill(rate, parts).times(2 * parts))
    }
}

/// From where on a vCPU runs without a pause: half a refill, and at least a page to run on.
pub(super) fn resume_level(refill: Tokens) -> Tokens {
    refill.divided(2).0.max(Tokens::ONE_PAGE)
}
