//! Whether a quota was held, and if not, why: one of the verdicts, with its reason in words.
//!
//! The first that applies, with q the quota, r the settled true rate, u the unlimited rate:
//!
//! | verdict | condition |
//! |---|---|
//! | unlimited | no quota |
//! | guest-too-slow | `u <= q`; or the limiter gives out whole rings, r is at least 90 % of u, and a ring was full less than once in two periods: it is emptied before the guest can fill it, so that the limiter hardly ever acts |
//! | oscillating, not-settled | as [`settle`](super::settle) found |
//! | held | `\|r - q\| <= max(10 % of q, 0.5 MiB/s)`, below as well as above: a stopped guest holds nothing |
//! | floor-bound | the limiter gives out whole rings, ring bytes / period > q, and r is at it |
//! | cap-bound | what the longest sleep lets through > q, and r is at it |
//! | tolerance-bound | `\|r - q\|` or the limiter's own reading's distance from q is within the law's tolerance |
//! | missed | none of these |
//!
//! r is *at* a bound b if `|r - b| <= max(15 % of b, 2 MiB/s)`.

use super::settle::State;
use crate::recording::schema::Verdict;

/// What a verdict on one vCPU is based on; rates in MiB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The limit in force.
    pub quota: Option<f64>,
    /// The rate before any limit, if it was measured.
    pub unlimited: Option<f64>,
    /// The true rate over the measured part.
    pub guest: f64,
    /// The limiter's own reading over the measured part.
    pub ring: f64,
    /// Standard deviation of the true rate as a share of its mean.
    pub oscillation_pct: f64,
    /// Whether it settled.
    pub state: State,
    /// Ring-full exits a period in the measured part.
    pub ring_full_a_period: f64,
    /// Ring bytes / period, if the limiter gives out whole rings.
    pub floor: Option<f64>,
    /// What the cap of the throttle lets through, if it has one and the unlimited rate is known.
    pub cap_floor: Option<f64>,
    /// The distance from the quota at which the law no longer acts, if it has one.
    pub tolerance: Option<f64>,
}

/// A verdict and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What it is.
    pub verdict: Verdict,
    /// Why, with the figures; a clause without a full stop.
    pub reason: String,
}

/// Judges one vCPU of one cell.
pub fn judge(evidence: &Evidence) -> Judgement {
    let Some(quota) = evidence.quota else {
        let reason = format!("no limit was set; the guest dirties {}", rate(evidence.guest));
        return Judgement {
            verdict: Verdict::Unlimited,
            reason,
        };
    };
    let (verdict, reason) = too_slow(evidence, quota)
        .or_else(|| unsteady(evidence))
        .unwrap_or_else(|| settled(evidence, quota));
    let reason = if (evidence.ring - evidence.guest).abs() > (0.25 * evidence.guest).max(2.0) {
        let (ring, guest) = (rate(evidence.ring), rate(evidence.guest));
        format!("{reason}; the limiter reads {ring} while the guest does {guest}")
    } else {
        reason
    };
    Judgement { verdict, reason }
}

fn too_slow(evidence: &Evidence, quota: f64) -> Option<(Verdict, String)> {
    let unlimited = evidence.unlimited?;
    if unlimited <= quota {
        let reason = format!(
            "the guest dirties only {} unlimited, so {} is never reached",
            rate(unlimited),
            rate(quota)
        );
        return Some((Verdict::GuestTooSlow, reason));
    }
    let floor = evidence.floor?;
    if evidence.guest < 0.9 * unlimited || evidence.ring_full_a_period >= 0.5 {
        return None;
    }
    let reason = format!(
        "the limiter hardly ever acts: at {} unlimited the guest doesn't fill its ring before it is emptied; to do so \
         within a period takes {}",
        rate(unlimited),
        rate(floor)
    );
    Some((Verdict::GuestTooSlow, reason))
}

fn unsteady(evidence: &Evidence) -> Option<(Verdict, String)> {
    match evidence.state {
        State::Settled { .. } => None,
        State::Oscillating { .. } => Some((
            Verdict::Oscillating,
            format!(
                "swings by {:.0} % about {}",
                evidence.oscillation_pct,
                rate(evidence.guest)
            ),
        )),
        State::Moving => Some((
            Verdict::NotSettled,
            format!("still moving when its time was up, last about {}", rate(evidence.guest)),
        )),
        State::TooShort => Some((
            Verdict::NotSettled,
            "too short to tell: give it a longer --duration".to_owned(),
        )),
    }
}

fn settled(evidence: &Evidence, quota: f64) -> (Verdict, String) {
    let guest = evidence.guest;
    let off = (guest - quota).abs();
    if off <= (0.10 * quota).max(0.5) {
        return (
            Verdict::Held,
            format!("{} is within 10 % of {}", rate(guest), rate(quota)),
        );
    }
    let bound =
        |bound: Option<f64>| bound.filter(|&bound| bound > quota && (guest - bound).abs() <= (0.15 * bound).max(2.0));
    if let Some(floor) = bound(evidence.floor) {
        let reason = format!(
            "{} is at the floor of ring bytes / period, {}",
            rate(guest),
            rate(floor)
        );
        return (Verdict::FloorBound, reason);
    }
    if let Some(cap) = bound(evidence.cap_floor) {
        let reason = format!(
            "{} is at what the longest sleep lets through, {}",
            rate(guest),
            rate(cap)
        );
        return (Verdict::CapBound, reason);
    }
    if let Some(tolerance) = evidence
        .tolerance
        .filter(|&tolerance| off.min((evidence.ring - quota).abs()) <= tolerance)
    {
        let reason = format!(
            "{} off {}: the law leaves what is within {}",
            rate(off),
            rate(quota),
            rate(tolerance)
        );
        return (Verdict::ToleranceBound, reason);
    }
    let reason = format!(
        "steady at {}, {} off {}, and no bound explains it",
        rate(guest),
        rate(off),
        rate(quota)
    );
    (Verdict::Missed, reason)
}

/// A rate with as many digits as mean something.
fn rate(mib_s: f64) -> String {
    let digits = usize::from(mib_s.abs() < 100.0);
    format!("{mib_s:.digits$} MiB/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU law on a ring of `ring_mib` with a period of 1 s, on a host that dirties 1,600 MiB/s.
    fn qemu(ring_mib: f64, quota: f64, ring: f64, guest: f64) -> Evidence {
        Evidence {
            quota: Some(quota),
            unlimited: Some(1600.0),
            guest,
            ring,
            oscillation_pct: 5.0,
            state: State::Settled { since_s: 2.0 },
            ring_full_a_period: 10.0,
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
        evidence.oscillation_pct = 366.0;
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
        slow.ring_full_a_period = 0.2;
        assert_eq!(verdict(&slow), Verdict::GuestTooSlow);
        // The same rates with a ring that does fill are the law's failure.
        slow.ring_full_a_period = 1.0;
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
                guest,
                ring: guest,
                ..budget
            };
            assert_eq!(verdict(&off), Verdict::Missed, "a quota of 25 is not held at {guest}");
        }
    }

    #[test]
    fn what_did_not_settle_is_never_held() {
        for state in [State::Moving, State::TooShort] {
            let evidence = Evidence {
                state,
                ..qemu(256.0, 256.0, 256.0, 256.0)
            };
            assert_eq!(verdict(&evidence), Verdict::NotSettled);
        }
    }

    #[test]
    fn without_a_quota_there_is_nothing_to_hold() {
        let evidence = Evidence {
            quota: None,
            state: State::Moving,
            ..qemu(256.0, 1.0, 1600.0, 1600.0)
        };
        assert_eq!(verdict(&evidence), Verdict::Unlimited);
    }
}
