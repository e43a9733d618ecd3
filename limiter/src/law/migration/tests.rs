//! No guest breaks a plan that was accepted, and what can be kept is accepted.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    sim::{Guest, When, Where, migrate, small},
    *,
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        Just(When::Always),
        Just(When::BeforeLook),
        Just(When::BeforeStop),
        any::<u64>().prop_map(When::Pattern),
    ]
}

fn place() -> impl Strategy<Value = Where> {
    prop_oneof![
        Just(Where::Sent),
        Just(Where::Sequential),
        (1..5_000_u64).prop_map(Where::Hot),
    ]
}

fn guest() -> impl Strategy<Value = Guest> {
    (when(), place(), 0..40_u64, any::<bool>()).prop_map(|(when, where_, free_per_ms, devices)| Guest {
        when,
        where_,
        free_per_ms,
        devices,
    })
}

/// Tasks from just possible to generous, some with devices that write.
fn task() -> impl Strategy<Value = Task> {
    (500..12_000_u64, 4.0..20.0_f64, 0.0..0.4_f64, 1.001..3.0_f64, 0..400_u64).prop_filter_map(
        "no downtime does",
        |(left, per_ms, devices, generous, downtime_more)| {
            let mut task = small(left, per_ms, Duration::ZERO, ms(80 + downtime_more));
            task.devices = MibPerSec(task.bandwidth.0 * devices);
            let least = plan(&task).expect_err("no time at all").within?;
            task.within = least.mul_f64(generous);
            Some(task)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_guest_breaks_an_accepted_plan(task in task(), guest in guest(), solves_again in any::<bool>()) {
        let plan = plan(&task).expect("what is more generous than the least is accepted");
        prop_assert!(plan.total.bound <= task.within && plan.blackout.bound <= task.downtime);
        let outcome = migrate(&task, &plan, guest, solves_again);
        let outcome = outcome.unwrap_or_else(|| panic!("it never ended: {plan:?}"));
        prop_assert!(outcome.total <= task.within, "{outcome:?} {plan:?}");
        prop_assert!(outcome.blackout <= plan.blackout.bound, "{outcome:?} {plan:?}");
        prop_assert!(solves_again || outcome.passes <= plan.passes.bound, "{outcome:?} {plan:?}");
    }

    #[test]
    fn what_a_refusal_names_would_do_and_less_would_not(task in task(), part in 0.05..1.0_f64) {
        let least = plan(&Task { within: ms(1), ..task.clone() }).expect_err("a millisecond").within.expect("a time does");
        // It was rounded up to a millisecond.
        let refused = Task { within: least.saturating_sub(ms(1)).mul_f64(part), ..task };
        let refusal = plan(&refused).expect_err("less than the least");
        let could = [
            refusal.within.map(|within| Task { within, ..refused.clone() }),
            refusal.bandwidth.map(|bandwidth| Task { bandwidth, ..refused.clone() }),
            refusal.downtime.map(|downtime| Task { downtime, ..refused.clone() }),
        ];
        for task in could.iter().flatten() {
            prop_assert!(plan(task).is_ok(), "{refusal} {task:?}");
        }
        let less = [
            refusal.within.map(|within| Task { within: within.saturating_sub(ms(1)), ..refused.clone() }),
            refusal.bandwidth.map(|rate| Task { bandwidth: MibPerSec(rate.0 - 0.01), ..refused.clone() }),
            refusal.downtime.map(|downtime| Task { downtime: downtime.saturating_sub(ms(1)), ..refused.clone() }),
        ];
        for task in less.iter().flatten() {
            prop_assert!(plan(task).is_err(), "{refusal} {task:?}");
        }
    }

    /// From a small VM over a slow link to a terabyte over a fast one.
    #[test]
    fn it_is_not_timid(left in 6.0..20.0_f64, bandwidth in 8.0..10_240.0_f64) {
        let mut task = small(left.exp2() as u64 * 256, bandwidth * 0.256, Duration::ZERO, ms(0));
        task.downtime = task.vmm.fixed.bound + ms(50);
        let least = plan(&task).expect_err("no time at all").within.expect("a time does");
        // Nobody can be faster than the link, and little is lost to looks, syncs and the lowest quota.
        let of_the_link = task.left.to_mib() / bandwidth;
        prop_assert!(least.as_secs_f64() <= of_the_link * 1.02 + 0.35, "{least:?}, link {of_the_link}");
        task.within = least.mul_f64(1.2);
        let plan = plan(&task).expect("a fifth more time than the least");
        prop_assert!(plan.quota.mib_per_sec() > bandwidth * 0.1, "{plan:?}");
    }
}

/// Runs that were measured: 250 MiB left dirty by a free first pass, 64 and 100 MiB/s, a quota of 20 MiB/s.
#[test]
fn the_bound_is_close_to_what_was_measured() {
    for (bandwidth, measured) in [(64.0, 9.0), (100.0, 5.2)] {
        let task = small(250 * 256, bandwidth * 0.256, Duration::MAX, ms(350));
        let bound = held::total(&task, 20.0 * 256.0, bounds::Start::AfterFirstPass).expect("it ends");
        assert!(bound > measured && bound < measured * 1.15, "{bound} {measured}");
    }
}

#[test]
fn a_forecast_is_what_a_guest_that_uses_its_quota_up_gets() {
    for (left, per_ms, within) in [
        (8_000, 16.0, 2_000),
        (8_000, 16.0, 900),
        (40_000, 20.0, 12_000),
        (3_000, 5.0, 1_500),
    ] {
        let task = small(left, per_ms, ms(within), ms(200));
        let plan = plan(&task).expect("accepted");
        let guest = Guest {
            when: When::Always,
            where_: Where::Sequential,
            free_per_ms: 100,
            devices: false,
        };
        let outcome = migrate(&task, &plan, guest, true).expect("it ends");
        let (expected, total) = (plan.total.expected.as_secs_f64(), outcome.total.as_secs_f64());
        assert!((expected - total).abs() < total * 0.15, "{outcome:?} {plan:?}");
    }
}

/// It is charged for the same pages again and again, and little is left of each pass.
#[test]
fn a_forecast_knows_a_guest_that_writes_the_same_pages() {
    for (hot, left, per_ms, within) in [
        (1_000, 8_000, 16.0, 2_000),
        (3_000, 20_000, 16.0, 3_000),
        (6_000, 20_000, 16.0, 2_500),
    ] {
        let mut task = small(left, per_ms, ms(within), ms(200));
        // The simulation charges every write.
        task.vmm.log.pages = Pages(1);
        let windows = [1, 10, 100, 1_000].map(|millis| (ms(millis), Pages(hot.min(100 * millis))));
        let unknown = plan(&task).expect("accepted").total.expected;
        task.dirtying = Dirtying::new(windows);
        let plan = plan(&task).expect("accepted");
        let guest = Guest {
            when: When::Always,
            where_: Where::Hot(hot),
            free_per_ms: 100,
            devices: false,
        };
        let total = migrate(&task, &plan, guest, true).expect("it ends").total;
        let error = |expected: Duration| (expected.as_secs_f64() / total.as_secs_f64() - 1.0).abs();
        assert!(
            error(plan.total.expected) < 0.15 && error(unknown) > 0.15,
            "{total:?} {unknown:?} {plan:?}"
        );
    }
}

/// What it waits for is not slowed down by a limit.
#[test]
fn a_guest_that_waits_now_and_then_uses_no_more_than_a_part_of_its_quota() {
    let known = Dirtying::new([(ms(100), Pages(1_000))]).expect("a window");
    let all = known.distinct(known.unslowed(5_000.0, 0.1));
    let waits = known.clone().with_idle(0.8);
    let part = waits.distinct(waits.unslowed(5_000.0, 0.1));
    assert!((all - 500.0).abs() < 1.0, "{all}");
    // 1,000 pages take 200 ms of quota and 80 of waiting.
    assert!((part - 100.0 / 280.0 * 1_000.0).abs() < 1.0, "{part}");
}

#[test]
fn a_promise_is_kept_from_now_on_or_said_to_be_lost() {
    let task = small(4_000, 16.0, ms(700), ms(150));
    let solved = again(&task).expect("there is time");
    assert!(solved.total.bound <= task.within && solved.total.expected <= solved.total.bound);
    let halved = Task {
        bandwidth: MibPerSec(task.bandwidth.0 / 4.0),
        ..task.clone()
    };
    let refusal = again(&halved).expect_err("a quarter of the bandwidth");
    assert!(refusal.bandwidth.expect("a link does").0 < task.bandwidth.0);
    let text = refusal.to_string();
    assert!(
        text.contains("a total time of at least") && text.contains("or a bandwidth of at least"),
        "{text}"
    );
}

#[test]
fn what_is_known_of_a_guest_changes_what_is_expected_and_no_bound() {
    let unknown = small(40_000, 20.0, ms(9_000), ms(200));
    let known = Task {
        dirtying: Dirtying::new([(ms(100), Pages(300)), (ms(1_000), Pages(500))]),
        ..unknown.clone()
    };
    let (unknown, known) = (plan(&unknown).expect("accepted"), plan(&known).expect("accepted"));
    assert_eq!(
        (unknown.quota, unknown.begin, unknown.total.bound),
        (known.quota, known.begin, known.total.bound)
    );
    assert!(
        known.total.expected < unknown.total.expected.mul_f64(0.5),
        "{known:?} {unknown:?}"
    );
    assert_eq!(unknown.lost, None);
    let lost = known.lost.expect("something is known");
    assert!(lost.expected <= lost.bound, "{lost:?}");
}
