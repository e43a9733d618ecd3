//! What the laws have in common that decide at each full ring.

use std::time::Duration;

use crate::units::{Pages, Quota};

/// A law that computes, whenever a vCPU's ring is full, the sleep that the vCPU takes before it enters the guest again.
pub trait FullRingLaw: Send {
    /// The ring was full at `now`, and `pages` came out of it since it was full before; returns the sleep.
    fn sleep(&mut self, now: Duration, pages: Pages, quota: Quota) -> Duration;

    /// The vCPU's limit was cancelled: the next one begins anew.
    fn forget(&mut self);
}
