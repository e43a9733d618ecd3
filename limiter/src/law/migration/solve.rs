//! The plan for a task, or why there is none.

use std::time::Duration;

use super::{Again, Bounded, Plan, Refusal, Task, bounds::Start, forecast::forecast, held::held_from, refusal};
use crate::units::{PAGES_PER_MIB, Pages, Quota};

/// The guest runs free in the first pass if this part of the bandwidth is enough afterwards. Lower, it would seem to stand
/// still; higher, it would be limited for longer, and lose more work, because what it dirties has to be sent as well.
const WANTED_PART: f64 = 0.25;

/// The largest quota that keeps the promise, and when it begins.
///
/// # Errors
/// [`Refusal`], if no quota keeps the promise: what could be promised instead.
#[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
pub fn plan(task: &Task) -> Result<Plan, Refusal> {
    let wanted = task.bandwidth.pages_per_sec() * WANTED_PART;
    let (start, held) = held_from(task, Start::AfterFirstPass)
        .filter(|held| held.quota >= wanted)
        .map(|held| (Start::AfterFirstPass, held))
        .or_else(|| Some((Start::AtOnce, held_from(task, Start::AtOnce)?)))
        .ok_or_else(|| refusal::of(task))?;
    let expected = forecast(task, &held, start, task.vmm.buffered.expected);
    let lost = task.dirtying.as_ref().map(|dirtying| {
        let limited_for = held.total - expected.begin - held.worst.blackout;
        let slowed = (dirtying.rate() - held.quota).max(0.0) * limited_for;
        let most = slowed + dirtying.rate() * held.worst.blackout;
        Bounded {
            expected: Pages(expected.lost.ceil() as u64),
            bound: Pages(most.max(expected.lost).ceil() as u64),
        }
    });
    let syncs = held
        .worst
        .syncs(task)
        .expect("there is a total, so there is a number of syncs");
    Ok(Plan {
        quota: quota(held.quota),
        free_until: (start == Start::AfterFirstPass).then(|| Pages(held.worst.unsent_at_start().ceil() as u64)),
        begin: Duration::from_secs_f64(expected.begin),
        downtime_limit: held.worst.downtime_limit,
        passes: Bounded {
            expected: expected.passes,
            // The first one, and one after each sync.
            bound: 1 + u32::from(start == Start::AfterFirstPass) + syncs as u32,
        },
        total: Bounded {
            expected: Duration::from_secs_f64(expected.total),
            bound: Duration::from_secs_f64(held.total),
        },
        blackout: Bounded {
            expected: Duration::from_secs_f64(expected.blackout),
            bound: Duration::from_secs_f64(held.worst.blackout),
        },
        lost,
    })
}

/// The same for a migration whose limit is in force, from what is known of it now: the guest is not set free again.
/// [`Task::left`] is what is known to be left, and all that was dirtied since the last sync.
///
/// # Errors
/// [`Refusal`], if no quota keeps the promise any more: what could be promised instead.
pub fn again(task: &Task) -> Result<Again, Refusal> {
    let held = held_from(task, Start::AtOnce).ok_or_else(|| refusal::of(task))?;
    Ok(Again {
        quota: quota(held.quota),
        downtime_limit: held.worst.downtime_limit,
        total: Bounded {
            // What lies in the buffers was counted when it went there.
            expected: Duration::from_secs_f64(forecast(task, &held, Start::AtOnce, Pages(0)).total),
            bound: Duration::from_secs_f64(held.total),
        },
    })
}

fn quota(pages_per_sec: f64) -> Quota {
    Quota::new(pages_per_sec / PAGES_PER_MIB as f64).expect("it lies between a part of the bandwidth and all of it")
}
