//! What a thread says of itself at one moment, although it goes on meanwhile.

use std::{thread::sleep, time::Duration};

use dirtyrig_probes_common::{RING_CHANGES, Thread};

use crate::{Error, monotonic_now};

/// Readings that a thread may make void by going in and out of `KVM_RUN`.
const READINGS: u32 = 8;
/// A reading that takes longer is taken again, and the quickest counts: this process was moved aside in between, and it is not
/// known when the pages were read.
const QUICK: Duration = Duration::from_micros(500);
/// How long a thread takes to change its ring, unless its CPU is taken away in the middle.
const CHANGE: Duration = Duration::from_micros(100);
/// How often to wait for that.
const CHANGES: u32 = 1000;

/// A thread at one moment.
pub(crate) struct Moment {
    /// When.
    pub(crate) at: Duration,
    /// What it says of itself.
    pub(crate) thread: Thread,
    /// The pages that it had dirtied.
    pub(crate) pages: u64,
}

/// Reads a thread by `thread`, and its pages by `pages`, until they belong together; `None` once the thread is unknown. `pages`
/// is told whether it may look at a ring.
pub(crate) fn read(
    thread: impl Fn() -> Result<Option<Thread>, Error>,
    pages: impl Fn(&Thread, bool) -> Result<u64, Error>,
) -> Result<Option<Moment>, Error> {
    let mut quickest: Option<(Duration, Moment)> = None;
    let mut last = None;
    let mut changes = 0;
    let mut readings = 0;
    while readings < READINGS {
        let begin = monotonic_now();
        let Some(before) = thread()? else { return Ok(None) };
        let read = pages(&before, true)?;
        let Some(after) = thread()? else { return Ok(None) };
        let took = monotonic_now().saturating_sub(begin);
        if (before.ring == RING_CHANGES || after.ring == RING_CHANGES) && changes < CHANGES {
            changes += 1;
            sleep(CHANGE);
            continue;
        }
        readings += 1;
        let same_run = is_same_run(&before, &after);
        let moment = Moment {
            at: begin + took / 2,
            // What was looked at may be no ring of its by now; what it counted itself has just been brought up to date.
            pages: if same_run { read } else { pages(&after, false)? },
            thread: after,
        };
        if !same_run {
            last = Some(moment);
        } else if took <= QUICK {
            return Ok(Some(moment));
        } else if quickest.as_ref().is_none_or(|(quickest, _)| took < *quickest) {
            quickest = Some((took, moment));
        }
    }
    // One that never stays goes in and out all the time, and counts as often.
    Ok(quickest.map(|(_, moment)| moment).or(last))
}

/// Whether the thread has neither entered nor left `KVM_RUN`, nor changed its ring.
fn is_same_run(before: &Thread, after: &Thread) -> bool {
    let run = |thread: &Thread| {
        let Thread {
            ring,
            pages_beyond_index,
            runs,
            userspace_exits,
            ..
        } = *thread;
        (ring, pages_beyond_index, runs, userspace_exits)
    };
    run(before) == run(after)
}
