//! The plan of a live migration: the quota that keeps a promised total time and a promised blackout, and from when on.
//!
//! A pre-copy sends memory in *passes*. The first sends everything, each later one what was dirtied during the one before.
//! QEMU looks at what is left after each *step* of sending. As soon as it knows of less than *threshold* = bandwidth x
//! downtime limit, it *syncs*: it collects the pages that were dirtied since the last sync. If less than the threshold is
//! left after that, it stops the guest and sends the rest; otherwise the next pass begins.
//!
//! ```text
//!  left
//!   V ─┐╲        ╲
//!      │ ╲ free   ╲ limited: L(t) <= V + b + Q t - B (t - n c)
//!   θ ─┼──╲────────╲─────────  threshold: below it QEMU syncs
//!      │   │ sync   ╲╱╲──┐
//!      └───┴─────────────┴──▶  time                          stop: the rest is sent
//! ```
//!
//! **The bound.** Let the guest be held to `Q` (with what its devices write) and a burst of `b`. Let QEMU send at `B`
//! except during `n` syncs of at most `c` each. Let `L` count what QEMU knows to be left, and what was dirtied since the last
//! sync: a page that is written before it is sent counts twice, because with a dirty ring it is sent twice. Whatever the
//! guest does, at most `V + b + Q t - B (t - n c)` is left after a time `t`, because each page that becomes dirty is charged.
//! If the guest is free in the first pass, all of `V` is left at its end and the same holds from there. Once `L` is below the threshold, the next sync finds it so:
//! it is a bound on the total time. The threshold is chosen so that what is sent after the stop takes no longer than the
//! promised blackout. How many passes there can be follows from the same argument: with `X` above the threshold left, a
//! pass leaves at most `X Q / B` and what was dirtied during the sync; near the end it takes at least the shortest step off.
//!
//! Everything here is a worst case, except what is called *expected*: a forecast from what is known of the guest. No bound
//! depends on that.

mod bounds;
mod dirtying;
mod forecast;
mod held;
mod refusal;
mod solve;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    dirtying::Dirtying,
    refusal::Refusal,
    solve::{again, plan},
};
use crate::units::{MibPerSec, Pages, Quota};

/// What is known of a value before it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounded<T> {
    /// What it will be, as far as the guest is known; a guest that is not known is taken to use its quota up.
    pub expected: T,
    /// What it is at most, whatever the guest does.
    pub bound: T,
}

/// What a limiter lets the guest dirty at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// As time in which the quota comes in.
    pub span: Duration,
    /// As pages, whatever the quota.
    pub pages: Pages,
}

/// How a VMM migrates, measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmm {
    /// From the command to the first page that is sent.
    pub setup: Bounded<Duration>,
    /// The shortest time that it sends, if it has enough to send, until it looks at what is left.
    pub shortest_step: Duration,
    /// The usual one.
    pub usual_step: Duration,
    /// The longest one.
    pub longest_step: Duration,
    /// A sync, in which it sends nothing.
    pub sync: Bounded<Duration>,
    /// From the moment at which the last sync reads the log to the stop of the last vCPU, at most.
    pub stop: Duration,
    /// The part of a blackout that depends neither on what is left nor on the link: stop, device state, resume.
    pub fixed: Bounded<Duration>,
    /// What lies between the VMM and the link, for it sent already: the link catches up during the blackout.
    pub buffered: Bounded<Pages>,
    /// How writes are logged.
    pub log: Log,
}

/// A page that was written is logged, and charged, once in a round; rounds begin at a sync, and when one of these is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// So many pages were logged: rings are full. The most there is, where a bitmap has room for all.
    pub pages: Pages,
    /// So long ago it began.
    pub every: Duration,
}

impl Log {
    /// A bitmap, which only a sync empties.
    pub const BITMAP: Self = Self {
        pages: Pages(u64::MAX),
        every: Duration::MAX,
    };
}

/// A migration, or what is left of one, and what was promised of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Memory that the guest uses, for what is expected: pages of zeros take next to no time.
    pub memory: Pages,
    /// Memory that the destination lacks, at most.
    pub left: Pages,
    /// At which it is sent, at least.
    pub bandwidth: MibPerSec,
    /// From now until the guest runs at the destination, at most.
    pub within: Duration,
    /// In which the guest runs nowhere, at most.
    pub downtime: Duration,
    /// What the guest's devices write, at most: nobody limits them.
    pub devices: MibPerSec,
    /// What the limiter lets through at once.
    pub burst: Burst,
    /// Who migrates.
    pub vmm: Vmm,
    /// What is known of the guest, for what is expected of it; no bound depends on it.
    pub dirtying: Option<Dirtying>,
}

/// A plan that keeps the promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the guest may dirty.
    pub quota: Quota,
    /// The guest is free until no more than this is left of the first pass; `None` if it is limited from the beginning.
    pub free_until: Option<Pages>,
    /// When that is expected to be.
    pub begin: Duration,
    /// What the VMM is to be given as its downtime limit, in whole milliseconds.
    pub downtime_limit: Duration,
    /// Passes, the first one and the one after the stop included.
    pub passes: Bounded<u32>,
    /// From now until the guest runs at the destination.
    pub total: Bounded<Duration>,
    /// In which the guest runs nowhere.
    pub blackout: Bounded<Duration>,
    /// Pages that the guest would have written and doesn't; `None` if nothing is known of its dirtying. Its bound holds for a
    /// guest that never dirties faster than it was seen to.
    pub lost: Option<Bounded<Pages>>,
}

/// What keeps the promise from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Again {
    /// What the guest may dirty.
    pub quota: Quota,
    /// What the VMM is to be given as its downtime limit, in whole milliseconds.
    pub downtime_limit: Duration,
    /// From now until the guest runs at the destination.
    pub total: Bounded<Duration>,
}
