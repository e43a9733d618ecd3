//! The bucket against a simulated guest of finite speed, stopped in each of the ways that an enforcement can stop it.
//! Exits take time, timers and sleeps end late.

use std::time::Duration;

use super::Budget;
use crate::{
    law::pace::Pace,
    units::{Pages, Quota},
};

const EXIT: Duration = Duration::from_micros(20);
const LATE: Duration = Duration::from_micros(70);
const MAX_STALL: Duration = Duration::from_millis(5);

/// What takes the vCPU out of the guest.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    /// The page that spends the grant.
    OnThePage,
    /// A timer, armed for the time that the fastest run would have needed, that fires late.
    Deadline,
    /// A ring with room for this many pages, or the page that spends the grant.
    FullRing(u64),
}

/// A guest that dirties at a constant rate whenever it may.
struct Guest {
    pages_per_sec: f64,
    stop: Stop,
    budget: Budget,
    pace: Pace,
    now: Duration,
    longest_pause: Duration,
}

impl Guest {
    fn new(unlimited: f64, stop: Stop, quota: f64) -> Self {
        Self {
            pages_per_sec: unlimited * 256.0,
            stop,
            budget: Budget::new(Duration::ZERO, Quota::new(quota).expect("a quota"), MAX_STALL),
            pace: Pace::new(Duration::ZERO),
            now: Duration::ZERO,
            longest_pause: Duration::ZERO,
        }
    }

    fn set_quota(&mut self, quota: f64) {
        self.budget.set_quota(self.now, Quota::new(quota).expect("a quota"));
    }

    /// The rate in MiB/s over the next `span` or a little more.
    fn run(&mut self, span: Duration) -> f64 {
        let (began, mut pages) = (self.now, 0);
        while self.now < began + span {
            pages += self.run_once();
        }
        pages as f64 / 256.0 / self.now.saturating_sub(began).as_secs_f64()
    }

    /// One entry, exit and pause.
    fn run_once(&mut self) -> u64 {
        let grant = self.budget.grant(self.now);
        let pages = match self.stop {
            Stop::OnThePage => grant.0,
            Stop::FullRing(entries) => grant.0.min(entries),
            Stop::Deadline => {
                let slice = self.pace.slice(grant, Duration::from_micros(50), MAX_STALL) + LATE / 2;
                (slice.as_secs_f64() * self.pages_per_sec) as u64
            }
        };
        let ran = Duration::from_secs_f64(pages as f64 / self.pages_per_sec);
        self.now += ran + EXIT;
        self.pace.observe(self.now, Pages(pages), ran);
        let pause = self.budget.charge(self.now, Pages(pages));
        if !pause.is_zero() {
            self.now += pause + LATE;
            self.longest_pause = self.longest_pause.max(pause);
        }
        pages
    }
}

const STOPS: [Stop; 4] = [
    Stop::OnThePage,
    Stop::Deadline,
    Stop::FullRing(16),
    Stop::FullRing(65_472),
];

fn assert_within(rate: f64, quota: f64, permille: f64, what: &str) {
    let error = (rate / quota - 1.0).abs() * 1000.0;
    assert!(
        error <= permille,
        "{what}: {rate} MiB/s at a quota of {quota}, {error} permille off"
    );
}

#[test]
fn a_quota_is_held_whatever_the_ring_the_speed_and_the_stop() {
    for stop in STOPS {
        for unlimited in [175.0, 1650.0, 50_000.0] {
            for quota in [0.25, 1.0, 25.0, 100.0, 500.0, 10_240.0] {
                // A ring of 16 pages takes 20 us an exit: no more than 3,125 MiB/s; exits cost the others as well.
                if quota > unlimited * 0.7 || stop == Stop::FullRing(16) && quota > 500.0 {
                    continue;
                }
                let mut guest = Guest::new(unlimited, stop, quota);
                guest.run(Duration::from_secs(2));
                let rate = guest.run(Duration::from_secs(200));
                assert_within(rate, quota, 2.0, &format!("{stop:?}, unlimited {unlimited}"));
            }
        }
    }
}

#[test]
fn a_change_of_quota_is_followed_within_100_ms() {
    for stop in STOPS {
        for (before, after) in [(1000.0, 100.0), (500.0, 100.0), (25.0, 300.0), (300.0, 1.0)] {
            let mut guest = Guest::new(1650.0, stop, before);
            guest.run(Duration::from_secs(1));
            guest.set_quota(after);
            guest.run(Duration::from_millis(100));
            let rate = guest.run(Duration::from_secs(10));
            assert_within(rate, after, 2.0, &format!("{stop:?}, {before} -> {after}"));
        }
    }
}

#[test]
fn pauses_are_as_short_as_asked_for() {
    for (stop, longest) in [
        (Stop::OnThePage, MAX_STALL),
        (Stop::FullRing(65_472), MAX_STALL),
        // What the late timer let through is paid as well: 35 us at 1,650 MiB/s are 15 pages, 2.3 ms.
        (Stop::Deadline, MAX_STALL + Duration::from_millis(3)),
    ] {
        let mut guest = Guest::new(1650.0, stop, 25.0);
        guest.run(Duration::from_secs(1));
        guest.longest_pause = Duration::ZERO;
        guest.run(Duration::from_secs(10));
        assert!(guest.longest_pause <= longest, "{stop:?}: {:?}", guest.longest_pause);
    }
}

#[test]
fn a_guest_slower_than_its_quota_is_not_slowed() {
    for stop in STOPS {
        let mut guest = Guest::new(20.0, stop, 25.0);
        guest.run(Duration::from_secs(10));
        assert_eq!(guest.longest_pause, Duration::ZERO, "{stop:?}");
    }
}

#[test]
fn a_quota_just_below_the_guests_speed_costs_few_exits() {
    let mut guest = Guest::new(175.0, Stop::OnThePage, 170.0);
    let mut exits = 0;
    while guest.now < Duration::from_secs(1) {
        guest.run_once();
        exits += 1;
    }
    assert!(exits <= 400, "{exits} in a second");
}
