//! How fast a vCPU can dirty, and so for how long it may run unobserved.

use std::time::Duration;

use super::tokens::{TokenRate, Tokens};
use crate::units::{MibPerSec, Pages, Quota};

/// Runs shorter than this say more about the exit than about the guest.
const SHORTEST_RUN: Duration = Duration::from_micros(20);

/// A peak is forgotten after one to two of these.
const MEMORY: Duration = Duration::from_secs(10);

/// The fastest recent run of a vCPU.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// The highest rate since `since`, in pages a second.
    peak: f64,
    /// The highest rate of the [`MEMORY`] before that.
    earlier_peak: f64,
    since: Duration,
}

impl Pace {
    /// Nothing seen yet.
    pub fn new(now: Duration) -> Self {
        Self {
            since: now,
            ..Self::default()
        }
    }

    /// The vCPU dirtied `pages` in the guest during the `ran` before `now`.
    pub fn observe(&mut self, now: Duration, pages: Pages, ran: Duration) {
        if now.saturating_sub(self.since) >= MEMORY {
            self.earlier_peak = std::mem::take(&mut self.peak);
            self.since = now;
        }
        if ran >= SHORTEST_RUN {
            self.peak = self.peak.max(pages.0 as f64 / ran.as_secs_f64());
        }
    }

    /// The fastest recent run; `None` before one was seen.
    pub fn fastest(&self) -> Option<MibPerSec> {
        let peak = self.peak.max(self.earlier_peak);
        (peak > 0.0).then(|| MibPerSec(peak / crate::units::PAGES_PER_MIB as f64))
    }

    /// How long the vCPU may run before it could have spent `grant`, within `shortest..=longest`; `shortest` while
    /// nothing is known of it.
    pub fn slice(&self, grant: Pages, shortest: Duration, longest: Duration) -> Duration {
        let needed = match self.fastest().map(|rate| Quota::new(rate.0)) {
            Some(Ok(rate)) => TokenRate::of(rate).time_for(Tokens::from(grant)),
            _ => Duration::ZERO,
        };
        needed.max(shortest).min(longest)
    }
}
