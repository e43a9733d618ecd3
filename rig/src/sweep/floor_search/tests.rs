use proptest::prelude::*;

use super::*;

const RANGE: Range = Range {
    lowest: 1.0,
    highest: 1000.0,
    within: 0.1,
    ratio: 1.1,
    repetitions: 3,
};
/// Octaves of the range, and a try each at their ends; the two halvings of an octave that bring it below 1.1 take three.
const MOST: u32 = 11 + 3;

/// Searches where `is_held` says which quotas are; returns the search and how many tries it took.
fn search(range: Range, mut is_held: impl FnMut(f64) -> bool) -> (FloorSearch, u32) {
    let mut search = FloorSearch::new(range);
    let mut tries = 0;
    while let Some(quota) = search.next() {
        assert!(
            (range.lowest..=range.highest).contains(&quota),
            "{quota} is out of range"
        );
        search.record(quota, is_held(quota));
        tries += 1;
        assert!(tries < 1000, "it goes on for ever");
    }
    (search, tries)
}

/// What every search promises, whatever was held.
fn is_sound(search: &FloorSearch) -> Result<(), TestCaseError> {
    let Range {
        ratio,
        repetitions,
        lowest,
        ..
    } = search.range;
    let bracket = search.bracket();
    if let Some(held) = bracket.held {
        prop_assert!(held.is_held() && held.tries >= repetitions);
        match bracket.not_held {
            None => prop_assert!(held.quota_mib_s <= lowest, "{bracket:?}"),
            Some(low) => {
                prop_assert!(!low.is_held() && low.tries >= repetitions);
                prop_assert!(low.quota_mib_s < held.quota_mib_s && held.quota_mib_s / low.quota_mib_s <= ratio);
            }
        }
        for below in search.tried.iter().filter(|tried| tried.quota_mib_s < held.quota_mib_s) {
            prop_assert!(!below.is_held(), "{below:?} is held, below {held:?}");
        }
    } else {
        prop_assert!(search.tried.iter().all(|tried| !tried.is_held()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_single_floor_lies_in_a_narrow_confirmed_bracket(floor in 1.01..999.0_f64, repetitions in 1..5_u32) {
        let (search, tries) = search(Range { repetitions, ..RANGE }, |quota| quota >= floor);
        is_sound(&search)?;
        let bracket = search.bracket();
        let (low, high) = (bracket.not_held.expect("1 is not held"), bracket.held.expect("1000 is held"));
        prop_assert!(low.quota_mib_s < floor && floor <= high.quota_mib_s);
        prop_assert!(tries <= MOST + 2 * (repetitions - 1), "{tries} tries");
    }

    /// The lowest band that no scan can miss, wherever others are, above it, and whatever is held within an octave.
    #[test]
    fn the_lowest_of_several_bands_is_found(
        lower in 1.01..300.0_f64, width in 2.01..4.0_f64, gap in 1.3..8.0_f64, upper_width in 1.01..2.0_f64,
    ) {
        let upper = lower * width * gap;
        let in_band = |quota: f64| (lower..lower * width).contains(&quota) || (upper..upper * upper_width).contains(&quota);
        let (search, tries) = search(RANGE, in_band);
        is_sound(&search)?;
        let bracket = search.bracket();
        let (low, high) = (bracket.not_held.expect("1 is not held"), bracket.held.expect("the band is held"));
        prop_assert!(low.quota_mib_s < lower && lower <= high.quota_mib_s, "{bracket:?}");
        prop_assert!(tries <= MOST + 2 * 2);
    }

    /// A guest that stands at one rate whatever the quota is held by the quotas next to it, and no others.
    #[test]
    fn a_rate_at_which_the_guest_stands_is_found(rate in 1.2..900.0_f64, within in 0.02..0.5_f64) {
        let (search, _) = search(Range { within, ..RANGE }, |quota| (quota - rate).abs() <= within * quota);
        is_sound(&search)?;
        let bracket = search.bracket();
        let (low, high) = (bracket.not_held.expect("1 is not held"), bracket.held.expect("a band of held quotas"));
        let lowest = rate / (1.0 + within);
        prop_assert!(low.quota_mib_s < lowest && high.quota_mib_s >= lowest * (1.0 - 1e-9), "{bracket:?}");
    }

    /// Whatever the votes are, it ends, and what it says follows from them.
    #[test]
    fn votes_of_any_kind_end_in_a_sound_result(
        votes in prop::collection::vec(any::<bool>(), 1..60), repetitions in 1..6_u32, highest in 1.5..2000.0_f64,
    ) {
        let mut votes = votes.into_iter().cycle();
        let (search, _) = search(Range { highest, repetitions, ..RANGE }, |_| votes.next().expect("a cycle has no end"));
        is_sound(&search)?;
    }
}

/// A guest of 179 MiB/s under a law that leaves what is within 25 MiB/s: with the steps of the law, quotas from half of the
/// unlimited rate on end up to 25 MiB/s too high, which is more than a tenth of them.
#[test]
fn a_tolerance_that_misses_the_highest_quotas_hides_no_floor() {
    let range = Range {
        highest: 143.0,
        ..RANGE
    };
    let (search, _) = search(range, |quota| (18.0..88.0).contains(&quota));
    let bracket = search.bracket();
    let (low, high) = (bracket.not_held.unwrap(), bracket.held.unwrap());
    assert!(low.quota_mib_s < 18.0 && high.quota_mib_s >= 18.0, "{bracket:?}");
}

#[test]
fn a_limiter_that_holds_everything_has_no_lower_end() {
    let (search, tries) = search(RANGE, |_| true);
    assert_eq!(search.bracket().not_held, None);
    assert_eq!(search.bracket().held.map(|held| held.quota_mib_s), Some(1.0));
    assert_eq!(tries, 3, "the lowest, as often as asked");
}

#[test]
fn a_limiter_that_holds_nothing_is_scanned_to_the_finest_step() {
    let (search, tries) = search(RANGE, |_| false);
    assert_eq!(search.bracket().held, None);
    assert_eq!(search.bracket().not_held.map(|tried| tried.quota_mib_s), Some(1000.0));
    // Ten octaves in quarters: 1.19, where 1.1 / 0.9 = 1.22 is asked for.
    assert_eq!((search.quotas(), tries), (41, 41));
}

#[test]
fn an_end_that_its_repetitions_contradict_gives_way() {
    let range = Range {
        lowest: 10.0,
        highest: 11.0,
        ratio: 1.2,
        ..RANGE
    };
    let mut search = FloorSearch::new(range);
    for (expected, held) in [(10.0, false), (11.0, true), (11.0, false), (11.0, false)] {
        assert_eq!(search.next(), Some(expected));
        search.record(expected, held);
    }
    assert_eq!(search.next(), None, "nothing is left above it");
    assert_eq!(search.bracket().held, None);
}

#[test]
fn a_tie_is_broken_by_one_more_try() {
    let range = Range {
        lowest: 10.0,
        highest: 11.0,
        ratio: 1.2,
        ..RANGE
    };
    let mut search = FloorSearch::new(range);
    for (expected, held) in [
        (10.0, false),
        (11.0, true),
        (11.0, false),
        (11.0, true),
        (10.0, false),
        (10.0, false),
    ] {
        assert_eq!(search.next(), Some(expected));
        search.record(expected, held);
    }
    assert_eq!(search.next(), None);
    assert_eq!(search.bracket().held.map(|held| (held.held, held.tries)), Some((2, 3)));
}
