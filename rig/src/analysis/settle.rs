//! When a rate, and the throttle that makes it, has settled: detected, not guessed.
//!
//! The rate is averaged under [`windows`](super::windows), which gives a value each period; n of them are there. A cell
//! then is in one of four [`State`]s, found in three steps.
//!
//! 1. **Where the transient ends.** The *marginal standard error rule* (MSER; White, "An effective truncation heuristic
//!    for bias reduction in simulation output", Simulation 69, 1997) drops the first d values, where d minimises
//!    `sum over i >= d of (x_i - mean_d)^2 / (n - d)^2`: what a longer tail gains in precision it must not lose to the
//!    transient. As usual d may be at most n / 2. A tail of zeros is *moving*: a vCPU that sleeps has not settled.
//!    MSER may drop good values where there was no transient, so the tail is extended back over values within
//!    `max(10 % of mean_d, 2 s_d)` of its mean. What results is the **steady part**, with mean m and standard deviation
//!    s; the settle time is where it begins, known to one window. If it begins no earlier than n / 2 the transient may
//!    not be over, and if it has fewer than [`Rules::min_values`] values nothing can be said: *moving*.
//! 2. **Whether it swings.** If s / m exceeds [`Rules::swing_pct`], the state is *oscillating* once the values have
//!    crossed m four times (two whole swings), and *moving* before.
//! 3. **Whether it stands still.** Let c be the change along a straight line through it, e the standard error of c, and w
//!    the same allowing for autocorrelation. Let h be the half-width of the 95 % confidence interval of m. *Settled* needs
//!    - `|c| + t(0.95) w <= max(25 % of m, 2 s, 0.5 MiB/s)`: a drift that matters is ruled out, not merely unseen;
//!    - `|c| <= max(5 % of m, 0.25 MiB/s)`, or `|c| <= t(0.995) e`: what drift is seen is small or chance. A QEMU law
//!      that corrects by a tenth of the ring-full time each period crawls at 1 % per second, without noise, for a minute;
//!    - `h <= max(10 % of m, 0.5 MiB/s)`, or no value further than that from m: the mean is known well enough.
//!
//!    Otherwise it is *moving*.
//! 4. **Whether its throttle does.** A law that acts once a period may turn its throttle for a minute before the rate answers:
//!    where a vCPU fills its ring twice a period, it goes on filling it twice until the sleep has grown by enough. So the
//!    throttle is averaged under the same windows. Where each of the last [`Rules::min_values`] is above the one before, or
//!    each below, and the change is 1 % or more, the state is *moving*. A sleep counts as a period at most: what is longer holds
//!    the vCPU through the whole of it, however long.

use super::{stats, windows::Windows};
use crate::model::Rules;

/// How far a rate has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Fewer values than a steady part needs.
    TooShort,
    /// The transient goes on, or can't be told from a drift.
    Moving(Moving),
    /// Swings about a mean.
    Oscillating {
        /// When the swinging part begins.
        since_s: f64,
    },
    /// Stands still.
    Settled {
        /// When the settled part begins.
        since_s: f64,
    },
}

impl State {
    /// When the part begins that can be measured.
    pub fn since_s(self) -> Option<f64> {
        match self {
            Self::TooShort | Self::Moving(_) => None,
            Self::Oscillating { since_s } | Self::Settled { since_s } => Some(since_s),
        }
    }
}

/// What moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moving {
    /// Whether the rate does.
    pub rate: bool,
    /// How the throttle does, if it does.
    pub throttle: Option<Drift>,
}

/// A throttle that goes one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// What it was, in seconds.
    pub from_s: f64,
    /// What it is.
    pub to_s: f64,
    /// In what time.
    pub over_s: f64,
}

/// Follows a rate while it is sampled.
#[derive(Clone, Debug)]
pub struct Settling {
    rules: Rules,
    start_s: f64,
    windows: Windows,
    throttle: Windows,
    state: State,
}

impl Settling {
    /// Begins at `start_s`, when the limit was set or changed.
    pub fn new(rules: Rules, start_s: f64) -> Self {
        Self {
            rules,
            start_s,
            windows: Windows::new(start_s, rules.window_s),
            throttle: Windows::new(start_s, rules.window_s),
            state: State::TooShort,
        }
    }

    /// Takes in the mean `rate` (MiB/s) from the previous sample to `t_s`, and the throttle in force, in seconds, of a law that
    /// has one. The state changes when a window is full.
    pub fn push(&mut self, t_s: f64, rate: f64, throttle_s: Option<f64>) -> State {
        if let Some(throttle_s) = throttle_s {
            self.throttle.push(t_s, throttle_s);
        }
        if self.windows.push(t_s, rate) {
            self.state = self.classify();
        }
        self.state
    }

    /// The state as of the last full window.
    pub fn state(&self) -> State {
        self.state
    }

    /// The rate under each full window so far.
    pub fn values(&self) -> &[f64] {
        self.windows.values()
    }

    /// Those of them that begin before `t_s`.
    pub fn values_before(&self, t_s: f64) -> &[f64] {
        let count = ((t_s - self.start_s) / self.rules.window_s).round() as usize;
        &self.values()[..count.min(self.values().len())]
    }

    fn classify(&self) -> State {
        let values = self.windows.values();
        if values.len() < self.rules.min_values {
            return State::TooShort;
        }
        let moving = |rate| {
            State::Moving(Moving {
                rate,
                throttle: self.drift(),
            })
        };
        let cut = truncation(values);
        if stats::mean(&values[cut..]) <= 0.0 {
            return moving(true);
        }
        let since = extend(values, cut);
        let part = &values[since..];
        if since == values.len() / 2 || part.len() < self.rules.min_values {
            return moving(true);
        }
        let since_s = self.start_s + since as f64 * self.rules.window_s;
        let (mean, sd) = (stats::mean(part), stats::sd(part));
        if 100.0 * sd / mean > self.rules.swing_pct {
            if crossings(part, mean) >= 4 {
                return State::Oscillating { since_s };
            }
        } else if stands_still(part, mean, sd) {
            return match self.drift() {
                None => State::Settled { since_s },
                Some(_) => moving(false),
            };
        }
        moving(true)
    }

    /// How the throttle moves, if it does.
    fn drift(&self) -> Option<Drift> {
        let values = self.throttle.values();
        let last = &values[values.len().checked_sub(self.rules.min_values)?..];
        let (&from_s, &to_s) = last.first().zip(last.last())?;
        let one_way = last.is_sorted_by(|a, b| a < b) || last.is_sorted_by(|a, b| a > b);
        let matters = (to_s - from_s).abs() >= DRIFT * from_s.max(to_s);
        (one_way && matters).then_some(Drift {
            from_s,
            to_s,
            over_s: (last.len() - 1) as f64 * self.rules.window_s,
        })
    }
}

/// The least change of a throttle that counts, as a share of it: QEMU's smallest steps, 4 ms per period on a sleep of 800 ms, make it 3 to
/// 4 % in eight windows.
const DRIFT: f64 = 0.01;

/// Where the part begins that is like the tail from `cut` on.
fn extend(values: &[f64], cut: usize) -> usize {
    let (before, tail) = values.split_at(cut);
    let mean = stats::mean(tail);
    let near = (0.10 * mean).max(2.0 * stats::sd(tail));
    cut - before
        .iter()
        .rev()
        .take_while(|&&rate| (rate - mean).abs() <= near)
        .count()
}

/// How many leading values belong to the transient, at most half of them.
fn truncation(values: &[f64]) -> usize {
    let (mut best, mut cut) = (f64::INFINITY, 0);
    // From the back, mean and sum of squares of the tail by Welford's updates.
    let (mut count, mut mean, mut square) = (0.0, 0.0, 0.0);
    for (index, &value) in values.iter().enumerate().rev() {
        count += 1.0;
        let step = value - mean;
        mean += step / count;
        square += step * (value - mean);
        // `<=`: of equals the longest tail.
        if index <= values.len() / 2 && square / (count * count) <= best {
            best = square / (count * count);
            cut = index;
        }
    }
    cut
}

/// How often the values change sides of `level`.
fn crossings(values: &[f64], level: f64) -> usize {
    values
        .windows(2)
        .filter(|pair| (pair[0] > level) != (pair[1] > level))
        .count()
}

fn stands_still(part: &[f64], mean: f64, sd: f64) -> bool {
    let Some(trend) = stats::trend(part) else {
        return false;
    };
    let near = (0.10 * mean).max(0.5);
    let change = trend.change.abs();
    let ruled_out = change + stats::student_t(0.95, trend.wide_freedom) * trend.wide_error;
    let luck = stats::student_t(0.995, trend.freedom) * trend.error;
    ruled_out <= (0.25 * mean).max(2.0 * sd).max(0.5)
        && (change <= (0.05 * mean).max(0.25) || change <= luck)
        && (stats::mean_interval(part).is_some_and(|interval| interval.half_width() <= near)
            || part.iter().all(|value| (value - mean).abs() <= near))
}

#[cfg(test)]
mod tests;
