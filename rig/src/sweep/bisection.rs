//! Search for the lowest quota that is held, by halving on a logarithmic scale.
//!
//! It assumes that there is one quota above which all are held and below which none is. A limiter that breaks this near
//! its floor shows in the votes: once the bracket is narrow enough its two ends are tried again, and an end whose
//! repetitions contradict it gives way to the next quota that was tried beyond it.

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
}

/// What came out: the floor lies between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    /// The highest quota that was not held; none if even the lowest one was.
    pub not_held: Option<Tried>,
    /// The lowest quota above it that was held; none if not even the highest one was.
    pub held: Option<Tried>,
}

/// A search in progress.
#[derive(Clone, Debug)]
pub struct Bisection {
    lowest: f64,
    highest: f64,
    /// Ratio of the bracket's ends at which it is narrow enough.
    ratio: f64,
    /// How often its ends are tried in the end.
    repetitions: u32,
    /// In ascending order of their quotas.
    tried: Vec<Tried>,
}

impl Bisection {
    /// A search from `lowest` to `highest`, until the ends are `ratio` apart and tried `repetitions` times.
    pub fn new(lowest: f64, highest: f64, ratio: f64, repetitions: u32) -> Self {
        assert!(
            0.0 < lowest && lowest < highest && ratio > 1.0 && repetitions > 0,
            "a range to be searched"
        );
        Self {
            lowest,
            highest,
            ratio,
            repetitions,
            tried: Vec::new(),
        }
    }

    /// The quota to be tried next; none when the search is over.
    pub fn next(&self) -> Option<f64> {
        if self.tried.is_empty() {
            return Some(self.highest);
        }
        let bracket = self.bracket();
        if let Some(end) = [bracket.held, bracket.not_held]
            .into_iter()
            .flatten()
            .find(|end| self.is_open(bracket, end))
        {
            return Some(end.quota_mib_s);
        }
        match (bracket.not_held, bracket.held) {
            // Nothing is held: the highest quota says so.
            (_, None) => None,
            (None, Some(held)) => (held.quota_mib_s > self.lowest).then_some(self.lowest),
            (Some(low), Some(high)) => {
                let (low, high) = (low.quota_mib_s, high.quota_mib_s);
                (high / low > self.ratio).then(|| (low * high).sqrt())
            }
        }
    }

    /// Whether an end of the bracket has to be tried again: the bracket is final, and it was not tried often enough.
    fn is_open(&self, bracket: Bracket, end: &Tried) -> bool {
        let is_final = match (bracket.not_held, bracket.held) {
            (_, None) => true,
            (None, Some(held)) => held.quota_mib_s <= self.lowest,
            (Some(low), Some(high)) => high.quota_mib_s / low.quota_mib_s <= self.ratio,
        };
        is_final && end.tries < self.repetitions
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

    /// What is known so far: the highest quota that was not held, and the one above it.
    pub fn bracket(&self) -> Bracket {
        let not_held = self.tried.iter().rposition(|tried| !tried.is_held());
        Bracket {
            not_held: not_held.map(|index| self.tried[index]),
            held: self.tried.get(not_held.map_or(0, |index| index + 1)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches where quotas from `floor` on are held; returns the bracket and how many tries it took.
    fn search(mut bisection: Bisection, floor: f64) -> (Bracket, u32) {
        let mut tries = 0;
        while let Some(quota) = bisection.next() {
            bisection.record(quota, quota >= floor);
            tries += 1;
            assert!(tries < 100, "it goes on for ever");
        }
        (bisection.bracket(), tries)
    }

    proptest! {
        #[test]
        fn the_floor_lies_in_a_narrow_confirmed_bracket(floor in 1.01..999.0_f64, repetitions in 1..5_u32) {
            let (bracket, tries) = search(Bisection::new(1.0, 1000.0, 1.1, repetitions), floor);
            let (low, high) = (bracket.not_held.expect("1 is not held"), bracket.held.expect("1000 is held"));
            prop_assert!(low.quota_mib_s < floor && floor <= high.quota_mib_s);
            prop_assert!(high.quota_mib_s / low.quota_mib_s <= 1.1);
            prop_assert!(low.tries >= repetitions && high.tries >= repetitions);
            // log2(ln 1000 / ln 1.1) halvings, the two ends, and the ends' repetitions.
            prop_assert!(tries <= 7 + 2 + 2 * (repetitions - 1));
        }
    }

    #[test]
    fn a_limiter_that_holds_everything_has_no_lower_end() {
        let (bracket, tries) = search(Bisection::new(1.0, 1000.0, 1.1, 3), 0.5);
        assert_eq!(bracket.not_held, None);
        assert!(bracket.held.is_some_and(|held| held.quota_mib_s <= 1.0));
        assert_eq!(tries, 1 + 3, "the highest once, the lowest as often as asked");
    }

    #[test]
    fn a_limiter_that_holds_nothing_has_no_upper_end() {
        let (bracket, tries) = search(Bisection::new(1.0, 1000.0, 1.1, 3), 2000.0);
        assert_eq!(bracket.held, None);
        assert!(bracket.not_held.is_some_and(|tried| tried.quota_mib_s >= 1000.0));
        assert_eq!(tries, 3);
    }

    #[test]
    fn an_end_that_its_repetitions_contradict_gives_way() {
        let mut bisection = Bisection::new(10.0, 11.0, 1.2, 3);
        for (expected, held) in [(11.0, true), (10.0, false), (11.0, false), (11.0, false)] {
            assert_eq!(bisection.next(), Some(expected));
            bisection.record(expected, held);
        }
        assert_eq!(bisection.next(), None, "nothing was tried above it");
        assert_eq!(bisection.bracket().held, None);
        assert_eq!(
            bisection.bracket().not_held.expect("11 gave way"),
            Tried {
                quota_mib_s: 11.0,
                held: 1,
                tries: 3
            }
        );
    }
}
