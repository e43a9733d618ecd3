//! Whether a quota was held, and if not, why: one of the verdicts, with its reason in words.
//!
//! The first that applies, with q the quota, r the settled true rate, u the unlimited rate:
//!
//! | verdict | condition |
//! |---|---|
//! | unlimited | no quota |
//! | unknown | r is not known: the guest keeps no counter, and no page was logged |
//! | guest-too-slow | `u <= q`; or the limiter gives out whole rings, r is at least 90 % of u, and a ring was full less than once in two periods: it is emptied before the guest can fill it, so that the limiter hardly ever acts |
//! | oscillating, not-settled | as [`settle`](super::settle) found |
//! | held | `\|r - q\| <= max(10 % of q, 0.5 MiB/s)`, below as well as above: a stopped guest holds nothing |
//! | floor-bound | the limiter gives out whole rings, ring bytes / period > q, and r is at it |
//! | cap-bound | what the longest sleep lets through > q, and r is at it |
//! | tolerance-bound | `\|r - q\|` or the limiter's own reading's distance from q is within the law's tolerance |
//! | missed | none of these |
//!
//! r is *at* a bound b if `|r - b| <= max(15 % of b, 2 MiB/s)`.
//!
//! A reason says which of two bounds decided. It gives its figures with as many digits as make the sentence true of them as
//! they are printed.

use super::settle::{Moving, State};
use crate::model::Verdict;

/// What the true rate was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A counter that the guest keeps.
    Counter,
    /// The pages that the kernel logged: the guest keeps no counter of ours.
    Log,
}

/// What a verdict on one vCPU, or on all of them together, is based on; rates in MiB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The limit in force.
    pub quota: Option<f64>,
    /// The rate before any limit, if it was measured.
    pub unlimited: Option<f64>,
    /// The true rate over the measured part, if it is known.
    pub guest: Option<f64>,
    /// Where that comes from.
    pub basis: Basis,
    /// The limiter's own reading over the measured part, if it has one.
    pub ring: Option<f64>,
    /// Standard deviation of the true rate as a share of its mean, if it has both.
    pub oscillation_pct: Option<f64>,
    /// Whether it settled.
    pub state: State,
    /// Ring-full exits per period in the measured part, if they are counted.
    pub ring_full_per_period: Option<f64>,
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

/// A distance that counts as none: a share of what it is measured from, or a rate where that is more.
#[derive(Clone, Copy)]
struct Band {
    pct: f64,
    mib_s: f64,
}

/// At the quota.
const HELD: Band = Band { pct: 10.0, mib_s: 0.5 };
/// At a bound.
const BOUND: Band = Band { pct: 15.0, mib_s: 2.0 };
/// A reading that differs by more from the truth is named.
const READ: Band = Band { pct: 25.0, mib_s: 2.0 };
/// A guest at this share of its unlimited rate, or above, is not limited.
const FREE: f64 = 0.9;

/// Whether a rate counts as one that is at its quota, below as well as above.
pub fn is_at_quota(rate: f64, quota: f64) -> bool {
    HELD.has(rate, quota)
}

/// Judges one vCPU of one cell, or all of them together.
pub fn judge(evidence: &Evidence) -> Judgement {
    let Some(quota) = evidence.quota else {
        let does = evidence.guest.map_or_else(
            || "what the guest dirties is not known".to_owned(),
            |guest| format!("the guest dirties {}", rate(guest)),
        );
        return Judgement {
            verdict: Verdict::Unlimited,
            reason: format!("no limit was set; {does}{}", by(evidence)),
        };
    };
    let Some(guest) = evidence.guest else {
        return Judgement {
            verdict: Verdict::Unknown,
            reason: unknown(evidence.basis).to_owned(),
        };
    };
    let (verdict, reason) = too_slow(evidence, guest, quota)
        .or_else(|| unsteady(evidence, guest))
        .unwrap_or_else(|| settled(evidence, guest, quota));
    let differs = |read: f64, guest: f64| !READ.has(read, guest);
    let reads = evidence
        .ring
        .filter(|&ring| differs(ring, guest))
        .map(|ring| {
            let [ring, guest] = told([ring, guest], |[ring, guest]| differs(ring, guest));
            format!("; the limiter reads {ring} while the guest does {guest}")
        })
        .unwrap_or_default();
    Judgement {
        verdict,
        reason: format!("{reason}{reads}{}", by(evidence)),
    }
}

/// Why a rate is not known.
fn unknown(basis: Basis) -> &'static str {
    match basis {
        Basis::Counter => "nothing was measured",
        Basis::Log => {
            "no page was logged and this guest keeps no counter, so what it dirties is not known: it is idle, or its dirty \
             logging is off"
        }
    }
}

/// Says so where a rate is not the guest's own.
fn by(evidence: &Evidence) -> &'static str {
    match evidence.basis {
        Basis::Log if evidence.guest.is_some() => "; by the pages logged, as this guest keeps no counter",
        _ => "",
    }
}

fn too_slow(evidence: &Evidence, guest: f64, quota: f64) -> Option<(Verdict, String)> {
    let unlimited = evidence.unlimited?;
    if unlimited <= quota {
        let [unlimited, quota] = told([unlimited, quota], |[unlimited, quota]| unlimited <= quota);
        let reason =
            format!("the guest dirties only {unlimited} without a limit, so a quota of {quota} does not limit it");
        return Some((Verdict::GuestTooSlow, reason));
    }
    let floor = evidence.floor?;
    let full = evidence.ring_full_per_period.filter(|&full| full < 0.5)?;
    if guest < FREE * unlimited {
        return None;
    }
    let fills = if unlimited < floor {
        let [unlimited, floor] = told([unlimited, floor], |[unlimited, floor]| unlimited < floor);
        format!("filling it within a period takes {floor}, and the guest dirties {unlimited} without a limit")
    } else {
        format!("the guest dirties {} without a limit", rate(unlimited))
    };
    let reason = format!(
        "the limiter hardly ever acts: the ring was full {full:.2} times per period, for it is emptied before; {fills}"
    );
    Some((Verdict::GuestTooSlow, reason))
}

fn unsteady(evidence: &Evidence, guest: f64) -> Option<(Verdict, String)> {
    match evidence.state {
        State::Settled { .. } => None,
        State::Oscillating { .. } => Some((
            Verdict::Oscillating,
            match evidence.oscillation_pct {
                Some(pct) => format!("swings by {pct:.0} % about {}", rate(guest)),
                None => format!("swings about {}", rate(guest)),
            },
        )),
        State::Moving(moving) => Some((Verdict::NotSettled, still_moving(moving, guest))),
        State::TooShort => Some((
            Verdict::NotSettled,
            "too short to tell: give it a longer --duration".to_owned(),
        )),
    }
}

fn still_moving(moving: Moving, guest: f64) -> String {
    let guest = rate(guest);
    match moving {
        Moving {
            rate: false,
            throttle: Some(drift),
        } => format!(
            "the rate stands at {guest}, but the throttle was still moving when its time was up: from {:.0} to {:.0} ms in the \
             last {:.0} s",
            1e3 * drift.from_s,
            1e3 * drift.to_s,
            drift.over_s
        ),
        Moving { throttle: None, .. } => {
            format!("still moving when its time was up; {guest} on average over the measured part")
        }
        Moving { .. } => format!(
            "rate and throttle were still moving when its time was up; {guest} on average over the measured part"
        ),
    }
}

fn settled(evidence: &Evidence, guest: f64, quota: f64) -> (Verdict, String) {
    if HELD.has(guest, quota) {
        return (Verdict::Held, HELD.sentence(guest, "", quota));
    }
    let is_at = |bound: f64, guest: f64, quota: f64| bound > quota && BOUND.has(guest, bound);
    let bounds = [
        (
            evidence.floor,
            Verdict::FloorBound,
            "the floor of ring bytes / period, ",
        ),
        (
            evidence.cap_floor,
            Verdict::CapBound,
            "what the longest sleep lets through, ",
        ),
    ];
    for (bound, verdict, name) in bounds {
        if let Some(bound) = bound.filter(|&bound| is_at(bound, guest, quota)) {
            let [low, high] = told([quota, bound], |[quota, bound]| quota < bound);
            let near = BOUND.sentence(guest, name, bound);
            return (verdict, format!("{near}; a quota of {low} is below {high}"));
        }
    }
    if let Some(tolerance) = evidence.tolerance {
        let leaves = |rate: f64, quota: f64| (rate - quota).abs() <= tolerance;
        if leaves(guest, quota) {
            let [guest, quota] = told([guest, quota], |[guest, quota]| leaves(guest, quota));
            let reason = format!(
                "{guest} is within {} of {quota}, where the law makes no adjustment",
                rate(tolerance)
            );
            return (Verdict::ToleranceBound, reason);
        }
        if let Some(ring) = evidence.ring.filter(|&ring| leaves(ring, quota)) {
            let [ring, quota] = told([ring, quota], |[ring, quota]| leaves(ring, quota));
            let reason = format!(
                "the limiter reads {ring}, within {} of {quota}, where the law makes no adjustment; the guest does {}",
                rate(tolerance),
                rate(guest)
            );
            return (Verdict::ToleranceBound, reason);
        }
    }
    let side = if guest > quota { "above" } else { "below" };
    let [guest, quota] = told([guest, quota], |printed| !HELD.has(printed[0], printed[1]));
    let reason = format!("steady at {guest}, {side} the quota of {quota}, and no bound explains it");
    (Verdict::Missed, reason)
}

impl Band {
    fn has(self, rate: f64, from: f64) -> bool {
        self.by_share(rate, from) || (rate - from).abs() <= self.mib_s
    }

    fn by_share(self, rate: f64, from: f64) -> bool {
        (rate - from).abs() <= self.pct / 100.0 * from
    }

    /// Says that a rate that is in the band is, by the bound that decides.
    fn sentence(self, rate: f64, name: &str, from: f64) -> String {
        if self.by_share(rate, from) {
            let [rate, from] = told([rate, from], |[rate, from]| self.by_share(rate, from));
            return format!("{rate} is within {:.0} % of {name}{from}", self.pct);
        }
        let [rate, from] = told([rate, from], |[rate, from]| (rate - from).abs() <= self.mib_s);
        format!("{rate} is within {} MiB/s of {name}{from}", self.mib_s)
    }
}

/// A rate with as many digits as mean something.
fn rate(mib_s: f64) -> String {
    let [text] = told([mib_s], |_| true);
    text
}

/// Rates with as few digits as leave true, of what is printed, what `holds` says of the rates themselves.
fn told<const N: usize>(rates: [f64; N], holds: impl Fn([f64; N]) -> bool) -> [String; N] {
    /// A double has no more.
    const MOST: usize = 17;
    let printed = |more: usize| {
        rates.map(|rate: f64| {
            let digits = usize::from(rate.abs() < 100.0) + more;
            format!("{rate:.digits$}")
        })
    };
    let is_true = |texts: &[String; N]| {
        // What was just printed from a number is one.
        holds(texts.each_ref().map(|text| text.parse().unwrap_or(f64::NAN)))
    };
    let texts = (0..MOST)
        .map(printed)
        .find(is_true)
        .unwrap_or_else(|| rates.map(|rate| rate.to_string()));
    texts.map(|text| text + " MiB/s")
}

#[cfg(test)]
mod tests;
