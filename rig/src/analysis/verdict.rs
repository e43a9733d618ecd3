//! Whether a quota was held, and if not, why: one of the verdicts, with its reason in words.
//!
//! The first that applies, with q the quota, r the settled true rate, u the unlimited rate:
//!
//! | verdict | condition |
//! |---|---|
//! | unlimited | no quota |
//! | guest-too-slow | `u <= q`; or the limiter gives out whole rings, no ring was ever full in the measured part, and ring bytes / period is above u: the limiter empties the ring before the guest can fill it, so that it never acts |
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
    /// Ring-full exits in the measured part.
    pub ring_full_exits: u64,
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
    let floor = evidence
        .floor
        .filter(|&floor| floor > unlimited && evidence.ring_full_exits == 0)?;
    let reason = format!(
        "the limiter never acts: at {} unlimited the guest can't fill its ring within a period, which takes {}",
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
