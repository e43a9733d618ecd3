//! Search for the lowest quota that is held: a scan, then bisection, both on a logarithmic scale.
//!
//! Holding need not be monotonic in the quota. A law with an absolute tolerance misses quotas close to the unlimited rate of
//! a slow guest, where the tolerance is much, and holds lower ones. So nothing is concluded from the highest quota:
//!
//! ```text
//!   lowest                                              highest
//!     ×───────×───────×───────✓─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤   scan upwards in octaves, to the first that is held
//!                     ×───✓───┤                               halve between it and its neighbour below
//!                     ×─×─┤                                   until they are close, then try both again
//! ```
//!
//! Where no octave is held the steps are halved. They end when every rate at which the guest may stand is within the
//! allowed error of one of the quotas.
//!
//! The result is the lowest quota *tried* that is held. A band of held quotas that is narrower than the steps, below the
//! first that was found, is missed.

/// Ratio of neighbours in the first scan.
const OCTAVE: f64 = 2.0;

/// What is known of one quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// The quota.
    pub quota_mib_s: f64,
    /// How often it was held.
    pub held: u32,
    /// How often it was tried.
    pub tries: u32,
}

impl Tried {
    fn is_held(self) -> bool {
        2 * self.held > self.tries
    }

    /// As often held as not: one more try decides.
    fn is_tied(self) -> bool {
        2 * self.held == self.tries
    }
}

/// What came out: the floor lies between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    /// The highest quota below `held` that was tried, and not held; none if `held` is the lowest of all. Where none is held
    /// it is the highest of all.
    pub not_held: Option<Tried>,
    /// The lowest quota that was held.
    pub held: Option<Tried>,
}

/// Where to search, and how closely; rates in MiB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The lowest quota tried.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
    /// Error up to which a quota counts as held, as a share of it.
    pub within: f64,
    /// Ratio of the bracket's ends at which it is narrow enough.
    pub ratio: f64,
    /// How often its ends are tried in the end.
    pub repetitions: u32,
}

/// A search in progress.
#[derive(Clone, Debug)]
pub struct FloorSearch {
    range: Range,
    /// In ascending order of their quotas.
    tried: Vec<Tried>,
}

impl FloorSearch {
    /// A search that has tried nothing yet.
    pub fn new(range: Range) -> Self {
        assert!(
            0.0 < range.lowest
                && range.lowest < range.highest
                && range.within > 0.0
                && range.ratio > 1.0
                && range.repetitions > 0,
            "a range to be searched"
        );
        Self {
            range,
            tried: Vec::new(),
        }
    }

    /// The quota to be tried next; none when the search is over.
    pub fn next(&self) -> Option<f64> {
        if let Some(tied) = self.tried.iter().find(|tried| tried.is_tied()) {
            return Some(tied.quota_mib_s);
        }
        let bracket = self.bracket();
        let Some(held) = bracket.held else {
            return self.scan();
        };
        if let Some(low) = bracket.not_held
            && held.quota_mib_s / low.quota_mib_s > self.range.ratio
        {
            return Some((low.quota_mib_s * held.quota_mib_s).sqrt());
        }
        let mut ends = [bracket.held, bracket.not_held].into_iter().flatten();
        ends.find(|end| end.tries < self.range.repetitions)
            .map(|end| end.quota_mib_s)
    }

    /// The next quota of the scan: upwards through the coarsest steps that have one left.
    fn scan(&self) -> Option<f64> {
        let Range { lowest, highest, .. } = self.range;
        let octaves = (highest / lowest).log(OCTAVE).ceil().max(1.0) as u32;
        let mut steps = octaves;
        loop {
            let quota = |step: u32| {
                if step == steps {
                    highest
                } else {
                    lowest * (highest / lowest).powf(f64::from(step) / f64::from(steps))
                }
            };
            let mut left = (0..=steps).map(quota).filter(|&quota| !self.is_tried(quota));
            if let Some(quota) = left.next() {
                return Some(quota);
            }
            if (highest / lowest).powf(1.0 / f64::from(steps)) <= self.finest_step() {
                return None;
            }
            steps *= 2;
        }
    }

    /// A guest that the limiter leaves at a rate, whatever the quota, is within the error of quotas from `rate / (1 + within)`
    /// to `rate / (1 - within)`: steps of that ratio miss no such rate.
    fn finest_step(&self) -> f64 {
        let Range { within, .. } = self.range;
        if within < 1.0 {
            (1.0 + within) / (1.0 - within)
        } else {
            f64::INFINITY
        }
    }

    fn is_tried(&self, quota_mib_s: f64) -> bool {
        self.tried
            .binary_search_by(|tried| tried.quota_mib_s.total_cmp(&quota_mib_s))
            .is_ok()
    }

    /// Takes in whether `quota` was held.
    pub fn record(&mut self, quota_mib_s: f64, held: bool) {
        let at = self.tried.partition_point(|tried| tried.quota_mib_s < quota_mib_s);
        if self.tried.get(at).is_none_or(|tried| tried.quota_mib_s > quota_mib_s) {
            self.tried.insert(
                at,
                Tried {
                    quota_mib_s,
                    held: 0,
                    tries: 0,
                },
            );
        }
        self.tried[at].tries += 1;
        self.tried[at].held += u32::from(held);
    }

    /// What is known so far: the lowest quota that was held, and the one below it.
    pub fn bracket(&self) -> Bracket {
        let held = self.tried.iter().position(|tried| tried.is_held());
        let below = held.unwrap_or(self.tried.len()).checked_sub(1);
        Bracket {
            not_held: below.map(|index| self.tried[index]),
            held: held.map(|index| self.tried[index]),
        }
    }

    /// How many different quotas were tried.
    pub fn quotas(&self) -> usize {
        self.tried.len()
    }
}

#[cfg(test)]
mod tests;
