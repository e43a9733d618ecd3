//! The sleep after a full ring, computed instead of stepped: what QEMU's dirty limit could do with a few lines.
//!
//! At each full ring the pages are known that came out of it, and so is the time that the quota allows for them. The vCPU
//! sleeps for what is left of that time:
//!
//! ```text
//!   sleep = pages reaped / quota - time since the vCPU was last let go on
//! ```
//!
//! There is no gain, no tolerance, no period and no highest rate to remember; the first full ring after a new limit starts
//! the clock, and from the second on the rate is the quota. A sleep that ends late shortens the next one. What stays is
//! the price of acting at full rings alone: a guest writes a whole ring at full speed and then stalls for as long as the
//! quota allows for that ring, 10 s at 65,536 entries and 25 MiB/s.

use std::time::Duration;

use super::{
    descriptor::{Bounds, Descriptor, Enforced, Law},
    full_ring::FullRingLaw,
    periodic::{Policy, RingFullReap, SleepEnd, Threads},
};
use crate::units::{Pages, Quota};

/// As in QEMU under a limit, but that nothing except a command ends a sleep.
const COMPUTED: Policy = Policy {
    threads: Threads::Merged,
    ring_full_reap: RingFullReap::OwnRing,
    reaper_beside: false,
    sleep_end: SleepEnd::RunsOut,
};

pub(super) const RING_SLEEP: Descriptor = Descriptor {
    name: "ring-sleep",
    description: "sleep after a full ring, computed from the pages it held; any quota, stalls as long as a ring",
    law: Law::FullRing(|| Box::<RingSleep>::default()),
    enforced: Enforced::AtFullRing,
    policy: COMPUTED,
    bounds: Bounds {
        ring_cycles: true,
        ..Bounds::NONE
    },
    limits_whole_vm: false,
};

/// The schedule of one vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingSleep {
    /// The quota that it keeps to, and when the vCPU was, or was meant to be, let go on.
    since: Option<(Quota, Duration)>,
}

impl FullRingLaw for RingSleep {
    fn sleep(&mut self, now: Duration, pages: Pages, quota: Quota) -> Duration {
        let begun = match self.since {
            Some((kept, begun)) if kept == quota => begun,
            // Pages from before the limit are no debt under it.
            _ => {
                self.since = Some((quota, now));
                return Duration::ZERO;
            }
        };
        let allowed = Duration::from_secs_f64(pages.0 as f64 / quota.rate().pages_per_sec());
        let due = begun + allowed;
        // Time that a slow vCPU did not use is not saved up: one that turns fast would spend it all at once.
        self.since = Some((quota, due.max(now)));
        due.saturating_sub(now)
    }

    fn forget(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::PAGES_PER_MIB;

    fn quota(mib_per_sec: f64) -> Quota {
        Quota::new(mib_per_sec).expect("a quota")
    }

    #[test]
    fn from_the_second_full_ring_on_the_rate_is_the_quota() {
        let (mut law, ring) = (RingSleep::default(), Pages(16 * PAGES_PER_MIB));
        let fill = Duration::from_millis(10);
        assert_eq!(
            law.sleep(fill, ring, quota(25.0)),
            Duration::ZERO,
            "dirtied before the limit"
        );
        let mut now = fill;
        for _ in 0..10 {
            now += fill;
            let asleep = law.sleep(now, ring, quota(25.0));
            assert_eq!(asleep + fill, Duration::from_millis(640));
            now += asleep;
        }
    }

    #[test]
    fn a_new_quota_and_a_new_limit_begin_anew() {
        let (mut law, ring) = (RingSleep::default(), Pages(PAGES_PER_MIB));
        let second = Duration::from_secs(1);
        law.sleep(Duration::ZERO, ring, quota(1.0));
        assert_eq!(law.sleep(Duration::ZERO, ring, quota(1.0)), second);
        assert_eq!(law.sleep(Duration::ZERO, ring, quota(2.0)), Duration::ZERO);
        assert_eq!(law.sleep(Duration::ZERO, ring, quota(2.0)), second / 2);
        law.forget();
        assert_eq!(law.sleep(second, ring, quota(2.0)), Duration::ZERO);
    }

    proptest! {
        /// Whenever the rings fill, and however late the sleeps end, no more comes out than the quota allows, but for the
        /// ring that starts the clock.
        #[test]
        fn no_window_holds_more_than_the_quota_and_a_ring(
            mib_per_sec in 0.25..1000.0_f64,
            steps in prop::collection::vec((1..20_000_u64, 0..3_000_000_u64, 0..500_000_u64), 1..60),
        ) {
            let (mut law, quota) = (RingSleep::default(), quota(mib_per_sec));
            let (mut now, mut pages, mut largest) = (Duration::ZERO, 0, 0);
            law.sleep(now, Pages(1), quota);
            for (ring, fill_us, late_us) in steps {
                now += Duration::from_micros(fill_us);
                pages += ring;
                largest = largest.max(ring);
                let allowed = quota.rate().pages_per_sec() * now.as_secs_f64() + largest as f64 * (1.0 + 1e-9);
                prop_assert!(pages as f64 <= allowed, "{pages} pages by {now:?}, {allowed} allowed");
                now += law.sleep(now, Pages(ring), quota) + Duration::from_micros(late_us);
            }
        }
    }
}
