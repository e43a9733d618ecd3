//! The largest quota that keeps the promise, found by halving.

use super::{
    Task,
    bounds::{Start, Worst},
};

/// The lowest quota as a part of the bandwidth: halving it once more would buy half a percent of the time.
const LEAST_PART: f64 = 0.01;

/// Halvings of an interval until a quota is exact to one part in 10^12.
const HALVINGS: u32 = 40;

/// A quota and what it keeps.
pub(super) struct Held {
    /// In pages per second.
    pub(super) quota: f64,
    pub(super) worst: Worst,
    /// The longest total time.
    pub(super) total: f64,
}

/// The largest quota that keeps the promise.
pub(super) fn held_from(task: &Task, start: Start) -> Option<Held> {
    let within = task.within.as_secs_f64();
    let keeps = |quota: f64| total(task, quota, start).is_some_and(|total| total <= within);
    let (mut kept, mut broken) = (least_quota(task), task.bandwidth.pages_per_sec());
    if !keeps(kept) {
        return None;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(kept, broken);
        *(if keeps(middle) { &mut kept } else { &mut broken }) = middle;
    }
    let worst = Worst::of(task, kept)?;
    let total = worst.total(task, start)?;
    Some(Held {
        quota: kept,
        worst,
        total,
    })
}

/// The longest total time with a quota.
pub(super) fn total(task: &Task, quota: f64, start: Start) -> Option<f64> {
    Worst::of(task, quota)?.total(task, start)
}

pub(super) fn least_quota(task: &Task) -> f64 {
    task.bandwidth.pages_per_sec() * LEAST_PART
}
