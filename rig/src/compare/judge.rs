//! What a limiter did in one phase.
//!
//! A rate is a mean over a **window**: 200 ms for limiters that act all the time, two periods for those that act once a
//! period; no shorter than a cycle of the guest's phases. A phase has **settled** where every window that begins within the next five of its length, or until the phase
//! ends, is within [`NEAR_PCT`] of the quota. A window begins at every sample, so the settle time is known to the distance
//! of two samples, however long the windows are; a limiter that never comes near the quota never settles.

use std::time::Duration;

use super::phase::{At, Phase};

/// How near to the quota, in percent of it, is settled.
pub(super) const NEAR_PCT: f64 = 10.0;
/// A window of limiters that act all the time: forty pauses of the default length.
const WINDOW_S: f64 = 0.2;
/// Windows of the others, in periods: one may hold a ring more or less by chance of where it begins.
const PERIODS: f64 = 2.0;
/// For how many windows it must stay near.
const STAYS: f64 = 5.0;

/// How a limiter with `period` is judged (`None`: one that acts all the time), whose guest goes through a cycle of its own.
pub(super) fn window_s(period: Option<Duration>, guest_cycle: Option<Duration>) -> f64 {
    let own = period.map_or(WINDOW_S, |period| PERIODS * period.as_secs_f64());
    own.max(guest_cycle.unwrap_or_default().as_secs_f64())
}

/// What a limiter did in one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// When the limit changed, on the cell's clock.
    pub at_s: f64,
    /// The limit; `None` without one.
    pub quota_mib_s: Option<f64>,
    /// From the change to where the rate has come near the quota and stays; `None` where it never does, or nothing is
    /// limited.
    pub settle_s: Option<f64>,
    /// How far a window went past the quota in the direction of the change, in percent of it.
    pub overshoot_pct: Option<f64>,
    /// True rate of the steady part: from where it settled, or of the second half. This and what follows is `None` where it
    /// is not known.
    pub rate_mib_s: Option<f64>,
    /// Rate of pages only read in the same part.
    pub read_mib_s: Option<f64>,
    /// Distance of the rate from the quota in percent of it.
    pub error_pct: Option<f64>,
    /// What was written and read in percent of what was before any limit.
    pub of_unlimited_pct: Option<f64>,
    /// CPU time of limiting in percent of one CPU.
    pub cost_pct: Option<f64>,
    /// Where the steady part begins, on the cell's clock.
    pub steady_from_s: f64,
    /// Where the phase ends.
    pub until_s: f64,
}

/// Judges `phase`; `unlimited` are the rates of writing and reading before any limit, `width_s` is that of
/// a window.
pub(super) fn judge(phase: &Phase, unlimited: (Option<f64>, Option<f64>), width_s: f64) -> Option<Judged> {
    let (first, last) = (*phase.course.first()?, *phase.course.last()?);
    let rates = windows(&phase.course, width_s);
    let settled = phase.quota.and_then(|quota| settled(&rates, quota, width_s));
    let middle_s = f64::midpoint(first.t_s, last.t_s);
    let from_s = settled.unwrap_or(middle_s);
    let from = phase.course.iter().rfind(|at| at.t_s <= from_s).unwrap_or(&first);
    let (rate, read) = last.since(*from);
    let span_s = last.t_s - from.t_s;
    Some(Judged {
        at_s: first.t_s.max(0.0),
        quota_mib_s: phase.quota,
        settle_s: settled.map(|at_s| at_s - first.t_s.max(0.0)).map(|s| s.max(0.0)),
        overshoot_pct: phase
            .quota
            .zip(phase.before)
            .and_then(|(quota, before)| overshoot_pct(&rates, before, quota)),
        rate_mib_s: rate,
        read_mib_s: read,
        error_pct: phase
            .quota
            .zip(rate)
            .map(|(quota, rate)| 100.0 * (rate - quota) / quota),
        of_unlimited_pct: share_pct((rate, read), unlimited),
        cost_pct: last
            .cost_s
            .zip(from.cost_s)
            .filter(|_| span_s > 0.0)
            .map(|(last, from)| 100.0 * (last - from) / span_s),
        steady_from_s: from.t_s,
        until_s: last.t_s,
    })
}

/// Written and read together, in percent of what was before any limit.
fn share_pct(now: (Option<f64>, Option<f64>), unlimited: (Option<f64>, Option<f64>)) -> Option<f64> {
    let all = unlimited.0? + unlimited.1?;
    let now = now.0? + now.1?;
    (all > 0.0).then(|| 100.0 * now / all)
}

/// The rate of every window in which it is known, with where it begins.
fn windows(course: &[At], window_s: f64) -> Vec<(f64, f64)> {
    let begins = course.iter().enumerate();
    begins
        .filter_map(|(index, from)| {
            // A sample time that was computed another way may differ in its last digits.
            let to = course[index..].iter().find(|at| at.t_s - from.t_s >= window_s - 1e-6)?;
            Some((from.t_s, to.since(*from).0?))
        })
        .collect()
}

fn settled(rates: &[(f64, f64)], quota: f64, width_s: f64) -> Option<f64> {
    let is_near = |rate: f64| 100.0 * (rate - quota).abs() <= NEAR_PCT * quota;
    let stays = |from_s: f64| {
        rates
            .iter()
            .filter(|(at_s, _)| (from_s..=from_s + STAYS * width_s).contains(at_s))
            .all(|(_, rate)| is_near(*rate))
    };
    let mut begins = rates.iter().map(|(at_s, _)| *at_s);
    begins.find(|at_s| stays(*at_s))
}

/// `None` where there is no window.
fn overshoot_pct(windows: &[(f64, f64)], before: f64, quota: f64) -> Option<f64> {
    let rates = windows.iter().map(|(_, rate)| *rate);
    let past = if before > quota {
        quota - rates.fold(quota, f64::min)
    } else {
        rates.fold(quota, f64::max) - quota
    };
    (!windows.is_empty()).then(|| 100.0 * past / quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every 10 ms of a guest whose rate is that of `rate(t)`.
    fn phase(before: f64, quota: f64, rate: impl Fn(f64) -> f64) -> Phase {
        let mut written_mib = 0.0;
        let course = (0..=400).map(|step| {
            let t_s = f64::from(step) * 0.01;
            written_mib += if step == 0 { 0.0 } else { rate(t_s) * 0.01 };
            At {
                t_s,
                quota: Some(quota),
                written_mib: Some(written_mib),
                read_mib: Some(0.0),
                cost_s: Some(0.02 * t_s),
            }
        });
        Phase {
            quota: Some(quota),
            before: Some(before),
            course: course.collect(),
        }
    }

    fn judged(phase: &Phase) -> Judged {
        judge(phase, (Some(1000.0), Some(0.0)), WINDOW_S).expect("it has samples")
    }

    #[test]
    fn settling_is_seen_to_the_sample_though_windows_are_long() {
        let found = judged(&phase(1000.0, 100.0, |t_s| if t_s <= 0.05 { 1000.0 } else { 100.0 }));
        // A window that begins 10 ms early holds one sample of 1000 among its 20: 145.
        assert!((found.settle_s.expect("settled") - 0.05).abs() < 1e-9, "{found:?}");
        let near = |value: Option<f64>, expected: f64| value.is_some_and(|value| (value - expected).abs() < 1e-6);
        assert!(near(found.rate_mib_s, 100.0));
        assert!(near(found.of_unlimited_pct, 10.0) && near(found.cost_pct, 2.0));
        let at_once = judged(&phase(1000.0, 100.0, |_| 100.0));
        assert_eq!(at_once.settle_s, Some(0.0));
    }

    #[test]
    fn a_rate_that_stays_away_never_settles() {
        let found = judged(&phase(1000.0, 100.0, |_| 125.0));
        assert_eq!(found.settle_s, None);
        assert!((found.error_pct.expect("a quota") - 25.0).abs() < 1e-6);
        assert!((found.steady_from_s - 2.0).abs() < 1e-9, "its second half is measured");
    }

    #[test]
    fn of_a_guest_that_keeps_no_counter_nothing_is_claimed() {
        let mut untold = phase(1000.0, 100.0, |_| 100.0);
        for at in &mut untold.course {
            at.written_mib = None;
        }
        let found = judged(&untold);
        assert_eq!(
            (found.settle_s, found.overshoot_pct, found.rate_mib_s),
            (None, None, None)
        );
        assert_eq!((found.error_pct, found.of_unlimited_pct), (None, None));
    }

    #[test]
    fn passing_by_is_not_settling() {
        let found = judged(&phase(1000.0, 100.0, |t_s| (300.0 - 200.0 * t_s).clamp(40.0, 300.0)));
        assert_eq!(found.settle_s, None);
        assert!((found.overshoot_pct.expect("windows") - 60.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn overshoot_is_in_the_direction_of_the_change() {
        let swing = |t_s: f64| if t_s < 1.0 { 150.0 } else { 100.0 };
        assert!(judged(&phase(25.0, 100.0, swing)).overshoot_pct > Some(49.0));
        assert!(judged(&phase(500.0, 100.0, swing)).overshoot_pct < Some(1.0));
    }
}
