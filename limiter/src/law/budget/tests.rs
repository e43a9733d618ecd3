//! The guarantee of the bucket, its exactness, and clocks that misbehave.

use proptest::prelude::*;

use super::*;
use crate::units::PAGES_PER_MIB;

const SECOND: Duration = Duration::from_secs(1);
/// No deeper than pauses of 5 ms need.
const SHALLOW: Depth = Depth {
    max_stall: Duration::from_millis(5),
    burst: Duration::from_millis(10),
};

fn depth(max_stall: Duration, burst: Duration) -> Depth {
    Depth { max_stall, burst }
}

fn depths() -> impl Strategy<Value = Depth> {
    (1_u64..100_000, prop_oneof![1_u64..200_000, 1_u64..20_000_000])
        .prop_map(|(stall_us, burst_us)| depth(Duration::from_micros(stall_us), Duration::from_micros(burst_us)))
}

fn quota(mib_per_sec: f64) -> Quota {
    Quota::new(mib_per_sec).expect("a quota")
}

/// `rate` as whole millionths of a page per second, computed apart from [`TokenRate`].
fn micropages_per_sec(quota: Quota) -> u128 {
    (quota.mib_per_sec() * PAGES_PER_MIB as f64 * 1e6).round() as u128
}

/// Whether `pages` in `income` (millionths of a page x nanoseconds / second) and `burst` is within the guarantee.
fn is_within(pages: u128, income: u128, burst: Pages) -> bool {
    // A burst has a fraction that `burst()` does not show: less than a page.
    pages * 1_000_000_000_000_000 <= income + (u128::from(burst.0) + 1) * 1_000_000_000_000_000
}

/// One thing that happens to a bucket.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes; a debugger, a suspended host or a leap may make it long.
    Wait(Duration),
    /// The clock steps back.
    StepBack(Duration),
    /// The vCPU dirties this share of its grant, in this time, and is charged.
    Run { of_1000: u64, takes: Duration },
    /// The pause that is due is taken, and ends this late.
    Pause { late: Duration },
    /// The quota changes.
    SetQuota(f64),
    /// The bucket becomes another.
    SetDepth(Depth),
}

fn mib_per_sec() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.25),
        Just(1.0),
        Just(25.0),
        Just(500.0),
        Just(10_240.0),
        0.001..20_000.0
    ]
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..20_000_000_u64).prop_map(Duration::from_nanos),
        1 => (0..100_000_u64).prop_map(Duration::from_secs),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => span().prop_map(Event::Wait),
        1 => span().prop_map(Event::StepBack),
        6 => (0..=1000_u64, span()).prop_map(|(of_1000, takes)| Event::Run { of_1000, takes }),
        4 => span().prop_map(|late| Event::Pause { late }),
        1 => mib_per_sec().prop_map(Event::SetQuota),
        1 => depths().prop_map(Event::SetDepth),
    ];
    proptest::collection::vec(event, 1..60)
}

/// What a vCPU did that never overran its grant: after each event, the income and the pages so far, and the largest
/// burst that was in force.
struct Obedient {
    budget: Budget,
    now: Duration,
    rate: u128,
    history: Vec<(u128, u128, Pages)>,
}

impl Obedient {
    fn new(quota: Quota, depth: Depth) -> Self {
        // An epoch long enough ago that the clock can step back.
        let now = Duration::from_secs(1_000_000_000);
        let budget = Budget::new(now, quota, depth);
        let history = vec![(0, 0, budget.burst())];
        Self {
            budget,
            now,
            rate: micropages_per_sec(quota),
            history,
        }
    }

    fn passes(&mut self, span: Duration) {
        self.now += span;
        let &(income, pages, _) = self.history.last().expect("starts with an entry");
        self.note(income + self.rate * span.as_nanos(), pages);
    }

    fn note(&mut self, income: u128, pages: u128) {
        self.history.push((income, pages, self.budget.burst()));
    }

    fn play(&mut self, event: &Event) {
        match *event {
            Event::Wait(span) => self.passes(span),
            Event::StepBack(span) => self.now -= span,
            Event::Run { of_1000, takes } => {
                let pages = self.budget.grant(self.now).0 * of_1000 / 1000;
                self.passes(takes);
                self.budget.charge(self.now, Pages(pages));
                let &(income, so_far, _) = self.history.last().expect("starts with an entry");
                self.note(income, so_far + u128::from(pages));
            }
            Event::Pause { late } => {
                let pause = self.budget.pause(self.now);
                self.passes(pause + late);
            }
            Event::SetQuota(mib_per_sec) => {
                self.budget.set_quota(self.now, quota(mib_per_sec));
                self.rate = micropages_per_sec(quota(mib_per_sec));
                let &(income, pages, _) = self.history.last().expect("starts with an entry");
                self.note(income, pages);
            }
            Event::SetDepth(depth) => {
                self.budget.set_depth(self.now, depth);
                let &(income, pages, _) = self.history.last().expect("starts with an entry");
                self.note(income, pages);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_window_exceeds_the_quota_by_more_than_the_burst(
        first in mib_per_sec(),
        depth in depths(),
        events in events(),
    ) {
        let mut vcpu = Obedient::new(quota(first), depth);
        for event in &events {
            vcpu.play(event);
        }
        for (from, start) in vcpu.history.iter().enumerate() {
            let mut burst = start.2;
            for end in &vcpu.history[from..] {
                burst = burst.max(end.2);
                prop_assert!(is_within(end.1 - start.1, end.0 - start.0, burst), "{start:?} to {end:?}");
            }
        }
    }

    #[test]
    fn a_greedy_vcpu_loses_nothing(
        mib_per_sec in mib_per_sec(),
        stall_us in 100_u64..100_000,
        deeper in 2_u32..1000,
        late_permille in proptest::collection::vec(0_u32..900, 1..200),
    ) {
        let quota = quota(mib_per_sec);
        let max_stall = Duration::from_micros(stall_us);
        let mut budget = Budget::new(Duration::ZERO, quota, depth(max_stall, max_stall * deeper));
        let (mut now, mut pages) = (Duration::ZERO, 0_u128);
        let first = budget.grant(now);
        for late in late_permille {
            let grant = budget.grant(now);
            pages += u128::from(grant.0);
            let pause = budget.charge(now, grant);
            prop_assert!(!pause.is_zero());
            now += pause + pause * late / 1000;
        }
        // All that came in was dirtied, or is still in the bucket.
        let income = micropages_per_sec(quota) * now.as_nanos() / 1_000_000_000_000_000;
        let left = u128::from(budget.grant(now).0);
        prop_assert!((pages + left).abs_diff(income + u128::from(first.0)) <= 1, "{pages} + {left} of {income}");
    }

    #[test]
    fn a_pause_is_as_long_as_it_must_be_and_no_longer(
        mib_per_sec in mib_per_sec(),
        depth in depths(),
        saved in 0_u64..100_000_000,
        overrun in 0_u64..1_000_000,
    ) {
        let mut budget = Budget::new(Duration::ZERO, quota(mib_per_sec), depth);
        let began = Duration::from_micros(saved);
        let spent = Pages(budget.grant(began).0 + overrun);
        let pause = budget.charge(began, spent);
        let refill = budget.refill();
        prop_assert!(budget.grant(began + pause.saturating_sub(Duration::from_nanos(1))) <= refill);
        prop_assert_eq!(budget.pause(began + pause), Duration::ZERO);
        prop_assert!(budget.grant(began + pause) >= refill);
        // However much was saved up and spent at once, it lasts for what was overrun and the longest pause, or a page.
        let rate = TokenRate::of(quota(mib_per_sec));
        let longest = rate.time_for(Tokens::from(Pages(overrun))) + depth.max_stall.max(rate.time_for(Tokens::ONE_PAGE));
        prop_assert!(pause <= longest + Duration::from_nanos(2), "{pause:?} of {longest:?}");
    }
}

#[test]
fn stops_on_the_page_at_25_mib_per_sec() {
    // 6,400 pages per second, 5 ms: a refill of 32 pages.
    let mut budget = Budget::new(Duration::ZERO, quota(25.0), SHALLOW);
    assert_eq!((budget.refill(), budget.burst()), (Pages(32), Pages(64)));
    assert_eq!(budget.grant(Duration::ZERO), Pages(32));
    assert_eq!(budget.charge(Duration::ZERO, Pages(32)), Duration::from_millis(5));
    assert_eq!(
        budget.pause(Duration::from_millis(2)),
        Duration::from_millis(3),
        "cut short"
    );
    assert_eq!(
        budget.grant(Duration::from_micros(5_500)),
        Pages(35),
        "half a millisecond late"
    );
    assert_eq!(budget.grant(SECOND), Pages(64), "a long stall fills it, and no more");
}

#[test]
fn a_page_takes_its_time_at_a_quarter_mib_per_sec() {
    let mut budget = Budget::new(Duration::ZERO, quota(0.25), SHALLOW);
    assert_eq!((budget.refill(), budget.burst()), (Pages(1), Pages(2)));
    assert_eq!(budget.charge(Duration::ZERO, Pages(1)), Duration::from_micros(15625));
    assert_eq!(budget.grant(Duration::from_nanos(15_624_999)), Pages(0));
    assert_eq!(budget.grant(Duration::from_micros(15625)), Pages(1));
}

#[test]
fn runs_on_while_half_a_refill_is_left() {
    let mut budget = Budget::new(Duration::ZERO, quota(25.0), SHALLOW);
    assert_eq!(budget.charge(Duration::ZERO, Pages(16)), Duration::ZERO);
    // 15 of 32 pages are left: the pause is for the other 17.
    assert_eq!(
        budget.charge(Duration::ZERO, Pages(1)),
        Duration::from_nanos(17 * 156_250)
    );
}

#[test]
fn an_overrun_is_paid_by_the_next_pause() {
    let mut budget = Budget::new(Duration::ZERO, quota(1.0), depth(SECOND / 2, SECOND));
    // A refill is 128 pages; 256 more were dirtied before the exit: one second for them, half for the refill.
    assert_eq!(
        budget.charge(Duration::ZERO, Pages(128 + 256)),
        Duration::from_millis(1500)
    );
    assert_eq!(budget.grant(Duration::from_secs(1)), Pages(0));
}

#[test]
fn a_change_of_quota_takes_effect_at_once() {
    let mut budget = Budget::new(Duration::ZERO, quota(500.0), SHALLOW);
    budget.charge(Duration::ZERO, budget.refill());
    budget.set_quota(Duration::ZERO, quota(100.0));
    assert_eq!(budget.pause(Duration::ZERO), Duration::from_millis(5));
    assert_eq!(budget.grant(Duration::from_millis(5)), Pages(128));

    // What the smaller burst has no room for is lost.
    budget.set_quota(Duration::from_millis(5), quota(1.0));
    assert_eq!(budget.grant(Duration::from_millis(5)), budget.burst());

    // A debt of 1 ms at the old price is one of 1 ms at the new price.
    let mut indebted = Budget::new(Duration::ZERO, quota(500.0), SHALLOW);
    indebted.charge(Duration::ZERO, Pages(640 + 128));
    indebted.set_quota(Duration::ZERO, quota(5.0));
    assert_eq!(indebted.pause(Duration::ZERO), Duration::from_millis(1 + 5));
}

#[test]
fn a_clock_that_steps_back_neither_pays_twice_nor_stops_the_vcpu() {
    let mut budget = Budget::new(SECOND * 100, quota(25.0), SHALLOW);
    budget.charge(SECOND * 100, Pages(32));
    assert_eq!(budget.pause(SECOND * 40), Duration::from_millis(5));
    assert_eq!(budget.pause(SECOND * 40 + Duration::from_millis(5)), Duration::ZERO);
}

#[test]
fn a_deep_bucket_saves_up_and_pauses_no_longer() {
    // 6,400 pages per second.
    let mut budget = Budget::new(Duration::ZERO, quota(25.0), depth(Duration::from_millis(5), SECOND));
    assert_eq!((budget.refill(), budget.burst()), (Pages(32), Pages(6400)));
    assert_eq!(budget.grant(Duration::ZERO), Pages(32), "nothing is saved up yet");
    assert_eq!(budget.grant(SECOND / 2), Pages(3232));
    assert_eq!(budget.grant(SECOND * 5), Pages(6400), "a second's worth and no more");
    assert_eq!(budget.charge(SECOND * 5, Pages(6400)), Duration::from_millis(5));

    // What a shallower bucket has no room for is lost, and a debt is not.
    budget.set_depth(SECOND * 7, SHALLOW);
    assert_eq!(budget.grant(SECOND * 7), Pages(64));
    budget.charge(SECOND * 7, Pages(64 + 32));
    budget.set_depth(SECOND * 7, depth(Duration::from_millis(5), SECOND));
    assert_eq!(budget.pause(SECOND * 7), Duration::from_millis(10));
}

#[test]
fn a_pause_is_no_longer_than_half_of_what_can_be_saved_up() {
    let mut budget = Budget::new(
        Duration::ZERO,
        quota(25.0),
        depth(Duration::from_millis(5), Duration::from_millis(4)),
    );
    assert_eq!(budget.burst(), Pages(25), "4 ms of 6,400 pages a second");
    assert_eq!(budget.charge(Duration::ZERO, Pages(0)), Duration::ZERO);
    let spent = budget.grant(Duration::ZERO);
    // All 12 whole pages of 12.8, at 156.25 us each.
    assert_eq!(budget.charge(Duration::ZERO, spent), Duration::from_micros(1875));
}
