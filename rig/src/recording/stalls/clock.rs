//! The clock of a log: where on it each cell has its 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

/// Places the intervals of cells on one clock, which starts at [`Clock::start`]. Everything on it is in whole
/// milliseconds, as the log writes it. No time that it gives out is before one that it gave out earlier.
#[derive(Clone, Debug)]
pub(in crate::recording) struct Clock {
    /// When the recording began, since the epoch.
    start: Duration,
    /// Where each cell's own 0 is.
    zeros: BTreeMap<u32, Duration>,
    /// The latest start that was given out.
    latest: Duration,
    /// The latest end.
    end: Duration,
}

/// Where a cell goes that is not on the clock yet.
#[derive(Clone, Copy, Debug)]
pub(in crate::recording) enum Place<'a> {
    /// Its first interval has just ended: this is now, on the clock.
    Now(Duration),
    /// Where it was before; behind all others if that is not known.
    Kept(&'a BTreeMap<u32, Duration>),
    /// Behind all others: it was recorded by another clock.
    Behind,
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// A clock that starts at `start`, in time since the epoch.
    pub(in crate::recording) fn new(start: Duration) -> Self {
        Self {
            start: millis(start),
            zeros: BTreeMap::new(),
            latest: Duration::ZERO,
            end: Duration::ZERO,
        }
    }

    /// When it started, since the epoch.
    pub(in crate::recording) fn start(&self) -> Duration {
        self.start
    }

    /// The latest end of an interval.
    pub(in crate::recording) fn end(&self) -> Duration {
        self.end
    }

    /// Forgets where all other cells than `kept` have their 0.
    pub(in crate::recording) fn keep(&mut self, kept: &BTreeSet<u32>) {
        self.zeros.retain(|cell, _| kept.contains(cell));
    }

    /// Where `interval`, on its cell's own clock, lies on this one. Also the cell's 0 where this has just settled it.
    pub(super) fn place(
        &mut self,
        cell: u32,
        interval: &Range<Duration>,
        place: Place<'_>,
    ) -> (Range<Duration>, Option<Duration>) {
        let (start, end) = (millis(interval.start), millis(interval.end));
        let known = self.zeros.get(&cell).copied();
        let zero = known.unwrap_or_else(|| {
            let behind = self.end.saturating_sub(start);
            match place {
                Place::Now(now) => (millis(now).saturating_sub(end)).max(self.latest.saturating_sub(start)),
                Place::Kept(zeros) => zeros.get(&cell).copied().unwrap_or(behind),
                Place::Behind => behind,
            }
        });
        self.zeros.insert(cell, zero);
        let from = (zero + start).max(self.latest);
        let placed = from..(zero + end).max(from);
        self.latest = placed.start;
        self.end = self.end.max(placed.end);
        (placed, known.is_none().then_some(zero))
    }
}
