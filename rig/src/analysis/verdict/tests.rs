//! Verdicts of cells as they were measured, and of random evidence: every sentence by its own arithmetic.

use proptest::prelude::*;

use super::{super::settle::Drift, *};

const RATE: Moving = Moving {
    rate: true,
    throttle: None,
};

/// A QEMU law on a ring of `ring_mib` with a period of 1 s, on a host that dirties 1,600 MiB/s.
fn qemu(ring_mib: f64, quota: f64, ring: f64, guest: f64) -> Evidence {
    Evidence {
        quota: Some(quota),
        unlimited: Some(1600.0),
        guest: Some(guest),
        basis: Basis::Counter,
        ring: Some(ring),
        oscillation_pct: Some(5.0),
        state: State::Settled { since_s: 2.0 },
        ring_full_per_period: Some(10.0),
        floor: Some(ring_mib),
        cap_floor: Some(16.0),
        tolerance: Some(25.0),
    }
}

fn verdict(evidence: &Evidence) -> Verdict {
    judge(evidence).verdict
}

#[test]
fn measured_cells_of_qemu_7_get_the_verdicts_that_they_deserve() {
    // Ring MiB, quota, reading, truth, as measured with QEMU 7.2.
    for (ring_mib, quota, ring, guest, expected) in [
        (16.0, 500.0, 500.0, 495.0, Verdict::Held),
        (16.0, 128.0, 130.0, 129.0, Verdict::Held),
        (16.0, 25.0, 35.0, 35.0, Verdict::ToleranceBound),
        (16.0, 1.0, 19.0, 18.0, Verdict::FloorBound),
        (64.0, 64.0, 82.0, 77.0, Verdict::ToleranceBound),
        (64.0, 25.0, 68.0, 64.0, Verdict::FloorBound),
        (256.0, 256.0, 262.0, 257.0, Verdict::Held),
        (256.0, 128.0, 255.0, 246.0, Verdict::FloorBound),
        (256.0, 25.0, 255.0, 247.0, Verdict::FloorBound),
    ] {
        let evidence = qemu(ring_mib, quota, ring, guest);
        assert_eq!(verdict(&evidence), expected, "{evidence:?}");
    }
}

#[test]
fn a_reading_that_is_not_the_truth_is_named() {
    let mut evidence = qemu(256.0, 25.0, 261.0, 18.0);
    evidence.state = State::Oscillating { since_s: 2.0 };
    evidence.oscillation_pct = Some(366.0);
    let judgement = judge(&evidence);
    assert_eq!(judgement.verdict, Verdict::Oscillating);
    assert_eq!(
        judgement.reason,
        "swings by 366 % about 18.0 MiB/s; the limiter reads 261 MiB/s while the guest does 18.0 MiB/s"
    );
    assert!(!judge(&qemu(256.0, 500.0, 511.0, 498.0)).reason.contains("reads"));
}

#[test]
fn a_throttle_that_never_acts_is_the_guests_doing() {
    let mut slow = qemu(256.0, 100.0, 175.0, 175.0);
    slow.unlimited = Some(175.0);
    slow.ring_full_per_period = Some(0.2);
    assert_eq!(verdict(&slow), Verdict::GuestTooSlow);
    // The same rates with a ring that does fill are the law's failure.
    slow.ring_full_per_period = Some(1.0);
    assert_ne!(verdict(&slow), Verdict::GuestTooSlow);
    assert_eq!(verdict(&qemu(16.0, 1700.0, 1600.0, 1600.0)), Verdict::GuestTooSlow);
}

#[test]
fn the_cap_binds_where_the_floor_does_not() {
    let mut evidence = qemu(1.0, 2.0, 80.0, 80.0);
    evidence.cap_floor = Some(80.0);
    assert_eq!(verdict(&evidence), Verdict::CapBound);
}

#[test]
fn bounds_that_a_limiter_does_not_have_explain_nothing() {
    let budget = Evidence {
        floor: None,
        cap_floor: None,
        tolerance: None,
        ..qemu(256.0, 25.0, 23.9, 23.9)
    };
    assert_eq!(verdict(&budget), Verdict::Held);
    for guest in [0.0, 12.0, 40.0, 250.0] {
        let off = Evidence {
            guest: Some(guest),
            ring: Some(guest),
            ..budget
        };
        assert_eq!(verdict(&off), Verdict::Missed, "a quota of 25 is not held at {guest}");
    }
}

#[test]
fn what_did_not_settle_is_never_held() {
    for state in [State::Moving(RATE), State::TooShort] {
        let evidence = Evidence {
            state,
            ..qemu(256.0, 256.0, 256.0, 256.0)
        };
        assert_eq!(verdict(&evidence), Verdict::NotSettled);
    }
}

#[test]
fn what_moves_is_named() {
    let reason = |moving| {
        judge(&Evidence {
            state: State::Moving(moving),
            ..qemu(64.0, 64.0, 127.0, 127.0)
        })
        .reason
    };
    let throttle = Some(Drift {
        from_s: 0.76,
        to_s: 0.788,
        over_s: 7.0,
    });
    assert_eq!(
        reason(Moving { rate: false, throttle }),
        "the rate stands at 127 MiB/s, but the throttle was still moving when its time was up: from 760 to 788 ms in the last 7 s"
    );
    assert!(reason(Moving { rate: true, throttle }).starts_with("rate and throttle were still moving"));
    assert!(reason(RATE).starts_with("still moving when its time was up"));
}

#[test]
fn without_a_quota_there_is_nothing_to_hold() {
    let evidence = Evidence {
        quota: None,
        state: State::Moving(RATE),
        ..qemu(256.0, 1.0, 1600.0, 1600.0)
    };
    assert_eq!(verdict(&evidence), Verdict::Unlimited);
}

#[test]
fn the_bound_that_decided_is_the_one_that_is_named() {
    let near = |quota, guest| {
        judge(&Evidence {
            floor: None,
            cap_floor: None,
            tolerance: None,
            ..qemu(1.0, quota, guest, guest)
        })
    };
    // 64 vCPUs on two CPUs: by half a MiB/s, and not by a tenth of the quota.
    let judgement = near(2.0, 1.6);
    assert_eq!(
        (judgement.verdict, judgement.reason.as_str()),
        (Verdict::Held, "1.6 MiB/s is within 0.5 MiB/s of 2.0 MiB/s")
    );
    assert_eq!(near(25.0, 24.0).reason, "24.0 MiB/s is within 10 % of 25.0 MiB/s");
    // Rounded to one digit, 1.3 would not be within a tenth of 1.5.
    assert_eq!(near(1.46, 1.34).reason, "1.34 MiB/s is within 10 % of 1.46 MiB/s");
}

#[test]
fn a_law_that_is_content_with_its_reading_is_not_said_to_be_so_with_the_truth() {
    let judgement = judge(&qemu(1.0, 100.0, 110.0, 160.0));
    assert_eq!(judgement.verdict, Verdict::ToleranceBound);
    assert!(
        judgement
            .reason
            .starts_with("the limiter reads 110 MiB/s, within 25.0 MiB/s of 100 MiB/s"),
        "{}",
        judgement.reason
    );
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let untold = Evidence {
        guest: None,
        basis: Basis::Log,
        ..qemu(16.0, 25.0, 0.0, 0.0)
    };
    let judgement = judge(&untold);
    assert_eq!(judgement.verdict, Verdict::Unknown);
    assert!(
        judgement.reason.contains("what it dirties is not known"),
        "{}",
        judgement.reason
    );
    let free = judge(&Evidence { quota: None, ..untold });
    assert_eq!(free.reason, "no limit was set; what the guest dirties is not known");
}

/// The rates in a text, in the order in which they stand there.
fn rates(text: &str) -> Vec<f64> {
    let ends = text.match_indices(" MiB/s").map(|(at, _)| at);
    ends.map(|at| {
        let from = text[..at].rfind(' ').map_or(0, |space| space + 1);
        text[from..at].parse().expect("a rate")
    })
    .collect()
}

/// The share that a text names.
fn share_pct(text: &str) -> f64 {
    let at = text.find(" %").expect("a share");
    let from = text[..at].rfind(' ').map_or(0, |space| space + 1);
    text[from..at].parse().expect("a share")
}

/// Whether "A is within B of C" is true of the figures in it.
fn is_within(clause: &str) -> bool {
    if clause.contains(" % of ") {
        let [rate, from] = rates(clause)[..] else {
            panic!("two rates: {clause}")
        };
        (rate - from).abs() <= share_pct(clause) / 100.0 * from
    } else {
        let [rate, band, from] = rates(clause)[..] else {
            panic!("three rates: {clause}")
        };
        (rate - from).abs() <= band
    }
}

/// Checks every clause of a reason by its own figures.
fn check(evidence: &Evidence, judgement: &Judgement) {
    let Judgement { verdict, reason } = judgement;
    for clause in reason.split("; ") {
        let figures = rates(clause);
        let is_true = match clause {
            _ if clause.contains("where the law makes no adjustment") => is_within(clause),
            _ if clause.contains(" is within ") => is_within(clause),
            _ if clause.contains("is never") || clause.contains("does not limit it") => figures[0] <= figures[1],
            _ if clause.starts_with("a quota of ") => figures[0] < figures[1],
            _ if clause.starts_with("filling it") => figures[1] < figures[0],
            _ if clause.starts_with("steady at ") => {
                let side = if clause.contains(", above ") {
                    figures[0] > figures[1]
                } else {
                    figures[0] < figures[1]
                };
                side && (figures[0] - figures[1]).abs() > (0.1 * figures[1]).max(0.5)
            }
            _ if clause.contains(" while the guest does ") => {
                (figures[0] - figures[1]).abs() > (0.25 * figures[1]).max(2.0)
            }
            // They say a figure, and compare it with none.
            _ => figures.len() <= 1,
        };
        assert!(is_true, "{verdict:?}: `{clause}` of `{reason}` is false: {evidence:?}");
    }
}

/// Rates that are near one another as often as not, and some with many digits.
fn rate_near(base: f64) -> impl Strategy<Value = f64> {
    prop_oneof![
        (0.0..3000.0_f64).prop_map(|rate| rate),
        (0.0..20.0_f64).prop_map(|rate| rate),
        (0.8..1.2_f64).prop_map(move |share| base * share),
        (-0.6..0.6_f64).prop_map(move |off| (base + off).max(0.0)),
        (-26.0..26.0_f64).prop_map(move |off| (base + off).max(0.0)),
        Just(base),
    ]
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let quota = prop_oneof![0.01..5.0_f64, 1.0..2000.0_f64];
    let state = prop_oneof![
        3 => Just(State::Settled { since_s: 1.0 }),
        1 => Just(State::Oscillating { since_s: 1.0 }),
        1 => Just(State::Moving(RATE)),
        1 => Just(State::TooShort),
    ];
    let figures = quota.prop_flat_map(|quota| {
        (
            prop::option::weighted(0.95, Just(quota)),
            prop::option::of(rate_near(quota)),
            prop::option::weighted(0.95, rate_near(quota)),
            prop::option::weighted(0.95, rate_near(quota)),
            prop::option::of(rate_near(quota)),
            prop::option::of(rate_near(quota)),
        )
    });
    let rest = (
        prop::bool::ANY,
        prop::option::of(0.0..400.0_f64),
        prop::option::of(0.0..2.0_f64),
        prop::option::of(Just(25.0)),
    );
    (figures, rest, state).prop_map(
        |((quota, unlimited, guest, ring, floor, cap_floor), rest, state)| Evidence {
            quota,
            unlimited,
            guest,
            basis: if rest.0 { Basis::Counter } else { Basis::Log },
            ring,
            oscillation_pct: rest.1,
            state,
            ring_full_per_period: rest.2,
            floor,
            cap_floor,
            tolerance: rest.3,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn every_sentence_is_true_of_the_figures_in_it(evidence in evidence()) {
        let judgement = judge(&evidence);
        prop_assert!(!judgement.reason.contains("NaN"));
        check(&evidence, &judgement);
    }
}
