//! Rates as real limiters make them, and what settling must say of each.

use std::time::Duration;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

const STEP_S: f64 = 0.1;

/// A QEMU law's.
fn rules() -> Rules {
    Rules::new(Some(Duration::from_secs(1)))
}

/// The states after each sample of `seconds` of a rate.
fn follow(rules: Rules, seconds: f64, mut rate: impl FnMut(f64) -> f64) -> Vec<State> {
    let mut settling = Settling::new(rules, 0.0);
    let samples = (seconds / STEP_S).round() as u32;
    (1..=samples)
        .map(|sample| {
            let t_s = f64::from(sample) * STEP_S;
            settling.push(t_s, rate(t_s), None)
        })
        .collect()
}

fn last(states: &[State]) -> State {
    *states.last().expect("every test follows at least one sample")
}

fn ever_settled(states: &[State]) -> bool {
    states.iter().any(|state| matches!(state, State::Settled { .. }))
}

/// Close to normal, with mean 0 and deviation 1.
fn noise(rng: &mut SmallRng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// A guest that fills `ring_mib` at `unlimited` and then sleeps, so that a cycle takes `cycle_s`: the mean rate over
/// the last sample's time.
fn bursts(ring_mib: f64, unlimited: f64, cycle_s: f64) -> impl Fn(f64) -> f64 {
    let written = move |t_s: f64| {
        let fills = (t_s / cycle_s).floor();
        fills * ring_mib + ((t_s - fills * cycle_s) * unlimited).min(ring_mib)
    };
    move |t_s| (written(t_s) - written(t_s - STEP_S)) / STEP_S
}

#[test]
fn a_step_settles_where_it_lands() {
    let mut rng = SmallRng::seed_from_u64(7);
    let states = follow(rules(), 20.0, |t_s| {
        if t_s <= 2.0 {
            1700.0
        } else {
            500.0 * (1.0 + 0.05 * noise(&mut rng))
        }
    });
    let State::Settled { since_s } = last(&states) else {
        panic!("{:?}", last(&states));
    };
    assert!((2.0..=4.0).contains(&since_s), "settled since {since_s}");
    let first = states.iter().position(|state| matches!(state, State::Settled { .. }));
    assert!(
        first.is_some_and(|index| index as f64 * STEP_S < 15.0),
        "found at sample {first:?}"
    );
}

#[test]
fn noise_as_large_as_the_letters_readings_settles() {
    // Limit 500 read 415, 496, 485, 528: a deviation of 10 %.
    let settled = (0..200)
        .filter(|&seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            // Noise of a whole second, not of a sample.
            let mut value = 0.0;
            let states = follow(rules(), 30.0, |t_s| {
                if (t_s / STEP_S).round() as u64 % 10 == 1 {
                    value = 500.0 * (1.0 + 0.1 * noise(&mut rng));
                }
                value
            });
            ever_settled(&states)
        })
        .count();
    assert!(settled >= 190, "{settled} of 200");
}

#[test]
fn a_law_that_crawls_has_not_settled() {
    // After a change from 500 to 100 the fixed step adds a tenth of the ring-full time each second.
    let full_s = 256.0 / 1700.0;
    for deviation in [0.0, 0.01, 0.02, 0.05] {
        let wrong = (0..100)
            .filter(|&seed| {
                let mut rng = SmallRng::seed_from_u64(seed);
                let states = follow(rules(), 25.0, |t_s| {
                    let asked_s = full_s * (6.0 + 0.1 * t_s.floor());
                    256.0 / (full_s + asked_s) * (1.0 + deviation * noise(&mut rng))
                });
                ever_settled(&states)
            })
            .count();
        assert!(wrong <= 3, "noise {deviation}: {wrong} of 100 crawls passed as settled");
    }
}

#[test]
fn one_burst_every_fifteen_seconds_oscillates() {
    let states = follow(rules(), 120.0, bursts(256.0, 1700.0, 15.0));
    assert!(!ever_settled(&states));
    assert!(
        matches!(last(&states), State::Oscillating { .. }),
        "{:?}",
        last(&states)
    );
}

#[test]
fn rings_given_out_evenly_settle_and_stay_settled() {
    // Ring in MiB, from one fill to the next in seconds: at the floor, and at rates at which a second holds now one
    // fill, now two.
    for (ring_mib, cycle_s) in [
        (256.0, 1.0),
        (256.0, 1.04),
        (256.0, 0.96),
        (256.0, 0.7),
        (16.0, 0.89),
        (16.0, 0.125),
    ] {
        let states = follow(rules(), 120.0, bursts(ring_mib, 1700.0, cycle_s));
        let unsettled = states[150..]
            .iter()
            .filter(|state| !matches!(state, State::Settled { .. }))
            .count();
        // Where the beat of fills and windows begins anew, one window may look like the end of a transient.
        assert!(
            unsettled <= 10,
            "{cycle_s} s: not settled for {unsettled} samples after 15 s"
        );
    }
}

#[test]
fn a_cycle_that_the_windows_cover_settles() {
    let cycle = Duration::from_secs_f64(10.24);
    for (rules, is_settled) in [
        (Rules::new(None), false),
        (Rules::new(None).covering(Some(cycle)), true),
    ] {
        let states = follow(rules, 200.0, bursts(256.0, 1700.0, cycle.as_secs_f64()));
        let last = last(&states);
        assert_eq!(
            matches!(last, State::Settled { .. }),
            is_settled,
            "{last:?} under {rules:?}"
        );
    }
}

/// The states under a rate of 127 and a throttle.
fn under(seconds: u32, throttle_s: impl Fn(f64) -> f64) -> Vec<State> {
    let mut settling = Settling::new(rules(), 0.0);
    let samples = 1..=seconds * 10;
    let at = samples.map(|sample| f64::from(sample) * STEP_S);
    at.map(|t_s| settling.push(t_s, 127.0, Some(throttle_s(t_s)))).collect()
}

#[test]
fn a_rate_on_a_stair_has_not_settled_while_its_throttle_climbs() {
    // The law of 7.2 at ring 16384 and quota 64: two rings per period, which reads 127. The sleep of 760 ms
    // grows once per second, by a tenth of the 40 ms which the ring takes to fill.
    let states = under(40, |t_s| 0.76 + 0.004 * t_s.floor());
    assert!(!ever_settled(&states));
    let State::Moving(Moving {
        rate: false,
        throttle: Some(drift),
    }) = last(&states)
    else {
        panic!("{:?}", last(&states));
    };
    assert!((drift.to_s - drift.from_s - 0.028).abs() < 1e-3, "{drift:?}");
    assert!((drift.over_s - 7.0).abs() < 1e-9, "{drift:?}");
}

#[test]
fn a_throttle_that_stands_or_sways_lets_a_rate_settle() {
    let sways = |t_s: f64| 0.76 + 0.004 * f64::from((t_s as u32 / 2) % 2);
    let steps_once = |t_s: f64| if t_s < 6.0 { 0.76 } else { 0.8 };
    let past_it = |t_s: f64| if t_s < 4.0 { 0.7 + 0.01 * t_s.floor() } else { 0.74 };
    for throttle in [&sways as &dyn Fn(f64) -> f64, &steps_once, &past_it, &|_| 0.0] {
        let states = under(20, throttle);
        assert_eq!(last(&states), State::Settled { since_s: 0.0 });
    }
}

#[test]
fn a_limit_cycle_oscillates() {
    let states = follow(rules(), 60.0, |t_s| 500.0 * (1.0 + 0.8 * (t_s * 0.7).sin()));
    assert!(!ever_settled(&states));
    assert!(
        matches!(last(&states), State::Oscillating { .. }),
        "{:?}",
        last(&states)
    );
}

#[test]
fn a_vcpu_that_sleeps_has_not_settled() {
    let states = follow(rules(), 60.0, |t_s| if t_s <= 2.0 { 1700.0 } else { 0.0 });
    assert_eq!(
        last(&states),
        State::Moving(Moving {
            rate: true,
            throttle: None
        })
    );
    assert!(!ever_settled(&states));
}

#[test]
fn what_settled_and_then_moves_is_settled_no_longer() {
    let states = follow(rules(), 24.0, |t_s| if t_s < 16.0 { 500.0 } else { 100.0 });
    assert!(matches!(states[150], State::Settled { .. }));
    assert!(!matches!(last(&states), State::Settled { .. }), "{:?}", last(&states));
}

proptest! {
    #[test]
    fn truncation_is_the_minimum_that_its_formula_says(values in prop::collection::vec(0.0..2000.0_f64, 2..60)) {
        let score = |cut: usize| {
            let tail = &values[cut..];
            let mean = tail.iter().sum::<f64>() / tail.len() as f64;
            tail.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (tail.len() as f64).powi(2)
        };
        let cut = truncation(&values);
        prop_assert!(cut <= values.len() / 2);
        let best = (0..=values.len() / 2).map(score).fold(f64::INFINITY, f64::min);
        prop_assert!(score(cut) <= best * (1.0 + 1e-9) + 1e-9);
    }

    #[test]
    fn the_state_does_not_depend_on_how_often_one_samples(rates in prop::collection::vec(1.0..2000.0_f64, 8..40)) {
        let rules = rules();
        let (mut coarse, mut fine) = (Settling::new(rules, 0.0), Settling::new(rules, 0.0));
        for (second, &rate) in rates.iter().enumerate() {
            coarse.push(second as f64 + 1.0, rate, None);
            for quarter in 1..=4 {
                fine.push(second as f64 + f64::from(quarter) * 0.25, rate, None);
            }
        }
        prop_assert_eq!(coarse.state(), fine.state());
    }

    #[test]
    fn a_constant_rate_settles_from_its_start(rate in 0.5..5000.0_f64) {
        let states = follow(Rules::new(None), 5.0, |_| rate);
        prop_assert_eq!(last(&states), State::Settled { since_s: 0.0 });
    }
}
