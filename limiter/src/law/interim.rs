//! When a vCPU that runs on is charged for what it has dirtied so far, before it has spent its grant.
//!
//! A bucket takes what it is charged with as dirtied at that moment, because when it was is not known. What came in before
//! is lost if the bucket was full by then, although the pages, had they been charged as they were dirtied, would have made
//! room for it. That is a loss to every vCPU that dirties a part of its grant, waits for some milliseconds and dirties the
//! rest: because its guest waits, or because its VMM keeps it from running.

use std::time::Duration;

/// No longer than this without a charge: a grant that is out of reach is never spent.
const LONGEST: Duration = Duration::from_secs(1);

/// The times between charges become as long as this however shallow the bucket is: ten exits per second cost nothing.
const LONG: Duration = Duration::from_millis(100);

/// A shallow bucket costs no more exits than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// The next charge of a run. The times between them double, up to an eighth of the burst. A vCPU that hardly dirties costs few
/// exits, and one that is a little slower than its quota has saved up seven eighths of a burst after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interim {
    gap: Duration,
    longest: Duration,
    due: Duration,
}

impl Interim {
    /// For a run from `now` on under a bucket that takes `burst` to fill: what comes in until the first charge is a small
    /// part of it.
    pub fn first(now: Duration, burst: Duration) -> Self {
        Self::after(
            now,
            (burst / 32).clamp(SHORTEST, LONGEST),
            (burst / 8).clamp(LONG, LONGEST),
        )
    }

    /// After a charge at `now` in the same run.
    #[must_use]
    pub fn next(self, now: Duration) -> Self {
        Self::after(now, self.gap.saturating_mul(2).min(self.longest), self.longest)
    }

    fn after(now: Duration, gap: Duration, longest: Duration) -> Self {
        Self {
            gap,
            longest,
            due: now + gap,
        }
    }

    /// When it is due.
    pub fn due(self) -> Duration {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        law::{budget::Budget, depth::Depth},
        units::{Pages, Quota},
    };

    const SHALLOW: Depth = Depth {
        max_stall: Duration::from_millis(5),
        burst: Duration::from_millis(10),
    };

    /// What a vCPU may dirty next under a quota of 25.6 pages per millisecond. It had a grant of 128 pages, and dirtied 100 of
    /// them at once and the rest after `wait`.
    fn next_grant(wait: Duration, charges: impl Iterator<Item = Duration>) -> Pages {
        let mut budget = Budget::new(Duration::ZERO, Quota::new(100.0).expect("a quota"), SHALLOW);
        assert_eq!(budget.grant(Duration::ZERO), Pages(128));
        let mut left = 128;
        for at in charges.take_while(|&at| at < wait) {
            budget.charge(at, Pages(left - 28));
            left = 28;
        }
        budget.charge(wait, Pages(left));
        budget.grant(wait)
    }

    fn charges() -> impl Iterator<Item = Duration> {
        let first = Interim::first(Duration::ZERO, SHALLOW.burst);
        std::iter::successors(Some(first), |interim| Some(interim.next(interim.due()))).map(Interim::due)
    }

    #[test]
    fn a_vcpu_that_waits_with_a_part_of_its_grant_loses_nothing() {
        let wait = Duration::from_millis(7);
        assert_eq!(next_grant(wait, charges()), Pages(179), "what came in: 7 x 25.6");
        assert_eq!(next_grant(wait, std::iter::empty()), Pages(128), "without it");
    }

    #[test]
    fn one_a_little_slower_than_its_quota_saves_up_most_of_a_burst() {
        let deep = Depth {
            burst: Duration::from_secs(1),
            ..SHALLOW
        };
        let mut budget = Budget::new(Duration::ZERO, Quota::new(100.0).expect("a quota"), deep);
        let (mut interim, mut at) = (Interim::first(Duration::ZERO, deep.burst), Duration::ZERO);
        while at < Duration::from_mins(1) {
            // Nine tenths of what comes in.
            let ran = interim.due().saturating_sub(at);
            budget.charge(interim.due(), Pages((ran.as_secs_f64() * 25_600.0 * 0.9) as u64));
            at = interim.due();
            interim = interim.next(at);
        }
        assert!(budget.grant(at).0 >= 25_600 * 7 / 8, "{:?}", budget.grant(at));
    }

    #[test]
    fn one_that_waits_for_longer_than_the_burst_is_granted_no_more() {
        let wait = Duration::from_secs(1);
        assert_eq!(next_grant(wait, charges()), Pages(256 - 28));
        assert_eq!(
            charges().take_while(|&at| at < wait).count(),
            15,
            "few exits in a second"
        );
        assert!(
            charges().nth(1000).is_some_and(|at| at < 1000 * LONG),
            "but one each tenth of a second"
        );
    }
}
