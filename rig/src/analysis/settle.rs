//! When a rate has settled: detected, not guessed.
//!
//! The rate is averaged over bins; n of them are there. A cell then is in one of four [`State`]s, found in three steps.
//!
//! 1. **Where the transient ends.** The *marginal standard error rule* (MSER; White, "An effective truncation heuristic
//!    for bias reduction in simulation output", Simulation 69, 1997) drops the first d bins, where d minimises
//!    `sum over i >= d of (x_i - mean_d)^2 / (n - d)^2`: what a longer tail gains in precision it must not lose to the
//!    transient. As usual d may be at most n / 2; if the minimum is right there, the transient may not be over: *moving*.
//!    Otherwise the tail must have [`Rules::min_bins`] bins and a mean m above zero: a vCPU that sleeps has not settled.
//! 2. **Whether the tail swings.** With s the tail's standard deviation: if s / m exceeds [`Rules::swing_pct`], the
//!    state is *oscillating* once the bins have crossed m four times (two whole swings), and *moving* before.
//! 3. **Whether the tail stands still.** With c the change along a straight line through the tail and e its standard
//!    error, allowing for autocorrelation, and h the half-width of the 95 % confidence interval of m, *settled* needs
//!    - `|c| + t(0.95) e <= max(15 % of m, 1.5 s, 0.5 MiB/s)`: a drift that matters is ruled out, not merely unseen;
//!    - `|c| <= max(3 % of m, 0.25 MiB/s)`, or `|c| <= t(0.995) e`: what drift is seen is small or chance. A QEMU law
//!      that corrects by a tenth of the ring-full time each period crawls at 1 % a second, without noise, for a minute;
//!    - `h <= max(10 % of m, 0.5 MiB/s)`: the mean is known well enough to be judged.
//!
//!    Otherwise it is *moving*.
//!
//! The **settled part** begins at bin d, or earlier: it is extended back over bins within `max(10 % of m, 2 s)` of m,
//! because MSER may drop good bins where there was no transient. The settle time is known to one bin.

use std::time::Duration;

use dirtyrig_limiter::units::{Pages, Quota};

use super::{bins::Binner, stats};

/// What counts as settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Width of a bin.
    pub bin_s: f64,
    /// The fewest bins that a settled part has.
    pub min_bins: usize,
    /// Standard deviation, as a share of the mean, above which a tail swings.
    pub swing_pct: f64,
}

impl Rules {
    /// Bins for laws that act all the time: far longer than a pause of theirs, short enough to see them settle.
    const BIN_WITHOUT_PERIOD: Duration = Duration::from_millis(250);
    /// With 8 bins t(0.975) is 2.4, near its limit of 2.0: more bins gain little.
    const MIN_BINS: usize = 8;
    /// Above what whole rings alone make. A bin has two fills or more, so a steady law's counts are k or k + 1 with
    /// k >= 2, whose standard deviation is at most 0.5 / 2.5 = 20 % of their mean.
    const SWING_PCT: f64 = 30.0;

    /// The rules for a limiter that corrects once a `period` (`None`: all the time), and, if it can only give out
    /// whole rings, the `ring`.
    ///
    /// A bin is as long as two fills of the ring at the quota, but at least one period and at most two. Below that
    /// the count of whole rings in it, not the law, would make the rate swing.
    pub fn new(period: Option<Duration>, ring: Option<Pages>, quota: Option<Quota>) -> Self {
        let bin = match (period, ring, quota) {
            (None, ..) => Self::BIN_WITHOUT_PERIOD,
            (Some(period), Some(ring), Some(quota)) => {
                let two_fills = 2.0 * ring.to_mib() / quota.mib_per_sec();
                let longest = 2 * period;
                Duration::try_from_secs_f64(two_fills).map_or(longest, |fills| fills.clamp(period, longest))
            }
            (Some(period), ..) => period,
        };
        Self {
            bin_s: bin.as_secs_f64(),
            min_bins: Self::MIN_BINS,
            swing_pct: Self::SWING_PCT,
        }
    }
}

/// How far a rate has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Fewer bins than a settled part needs.
    TooShort,
    /// The transient goes on, or can't be told from a drift.
    Moving,
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
            Self::TooShort | Self::Moving => None,
            Self::Oscillating { since_s } | Self::Settled { since_s } => Some(since_s),
        }
    }
}

/// Follows a rate while it is sampled.
#[derive(Clone, Debug)]
pub struct Settling {
    rules: Rules,
    start_s: f64,
    binner: Binner,
    bins: Vec<f64>,
    state: State,
}

impl Settling {
    /// Begins at `start_s`, when the limit was set or changed.
    pub fn new(rules: Rules, start_s: f64) -> Self {
        Self {
            rules,
            start_s,
            binner: Binner::new(start_s, rules.bin_s),
            bins: Vec::new(),
            state: State::TooShort,
        }
    }

    /// Takes in the mean `rate` (MiB/s) from the previous sample to `t_s`. The state changes when a bin is full.
    pub fn push(&mut self, t_s: f64, rate: f64) -> State {
        let known = self.bins.len();
        self.binner.push(t_s, rate, &mut self.bins);
        if self.bins.len() > known {
            self.state = self.classify();
        }
        self.state
    }

    /// The state as of the last full bin.
    pub fn state(&self) -> State {
        self.state
    }

    /// The full bins so far.
    pub fn bins(&self) -> &[f64] {
        &self.bins
    }

    fn classify(&self) -> State {
        if self.bins.len() < self.rules.min_bins {
            return State::TooShort;
        }
        let cut = truncation(&self.bins);
        let tail = &self.bins[cut..];
        let (mean, sd) = (stats::mean(tail), stats::sd(tail));
        if cut == self.bins.len() / 2 || tail.len() < self.rules.min_bins || mean <= 0.0 {
            return State::Moving;
        }
        let near = (0.10 * mean).max(2.0 * sd);
        let before = self.bins[..cut].iter().rev();
        let since = cut - before.take_while(|&&rate| (rate - mean).abs() <= near).count();
        let since_s = self.start_s + since as f64 * self.rules.bin_s;
        if 100.0 * sd / mean > self.rules.swing_pct {
            if crossings(tail, mean) >= 4 {
                return State::Oscillating { since_s };
            }
            return State::Moving;
        }
        if stands_still(tail, mean, sd) {
            State::Settled { since_s }
        } else {
            State::Moving
        }
    }
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

fn stands_still(tail: &[f64], mean: f64, sd: f64) -> bool {
    let Some(trend) = stats::trend(tail) else {
        return false;
    };
    let change = trend.change.abs();
    let ruled_out = change + stats::student_t(0.95, trend.freedom) * trend.error;
    let luck = stats::student_t(0.995, trend.freedom) * trend.error;
    ruled_out <= (0.15 * mean).max(1.5 * sd).max(0.5)
        && (change <= (0.03 * mean).max(0.25) || change <= luck)
        && stats::mean_interval(tail).half_width() <= (0.10 * mean).max(0.5)
}
