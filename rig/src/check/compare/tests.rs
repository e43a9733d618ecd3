use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

/// Rows of one cell, a repetition for each value of its p99 stall; all other figures are steady.
fn runs(p99: impl IntoIterator<Item = f64>) -> Vec<Summary> {
    (0..)
        .zip(p99)
        .map(|(cell, stall_p99_us)| Summary {
            cell,
            repetition: cell,
            vmm: "rig".to_owned(),
            limiter: "budget".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(4096),
            period_ms: 1000,
            vcpus: 1,
            pauses: Some(100),
            stall_p99_us: Some(stall_p99_us),
            unlimited_mib_s: None,
            ..Summary::default()
        })
        .collect()
}

fn verdict(baseline: &[Summary], candidate: &[Summary]) -> (Verdict, Option<usize>) {
    let comparisons = compare(baseline, candidate);
    let one = comparisons
        .iter()
        .find(|one| one.metric.name == "stall_p99_us")
        .expect("it is compared");
    (one.verdict, one.needed)
}

/// Ten values about `level`, 2 % apart at most.
fn ten(level: f64) -> Vec<f64> {
    (0..10).map(|index| level * (1.0 + 0.002 * f64::from(index))).collect()
}

#[test]
fn a_change_that_matters_is_found_in_its_direction() {
    let (base, slow, fast) = (runs(ten(1000.0)), runs(ten(1200.0)), runs(ten(800.0)));
    assert_eq!(verdict(&base, &slow), (Verdict::Regressed, None));
    assert_eq!(verdict(&base, &fast), (Verdict::Improved, None));
}

#[test]
fn less_is_worse_where_more_is_better() {
    let rated = |rate: f64| -> Vec<Summary> {
        let mut rows = runs(ten(1000.0));
        for (row, share) in rows.iter_mut().zip(ten(1.0)) {
            row.unlimited_mib_s = Some(rate * share);
        }
        rows
    };
    let comparisons = compare(&rated(1600.0), &rated(1400.0));
    let one = comparisons
        .iter()
        .find(|one| one.metric.name == "unlimited_mib_s")
        .expect("it is compared");
    assert_eq!(one.verdict, Verdict::Regressed);
}

#[test]
fn a_change_that_is_certain_but_small_is_none() {
    assert_eq!(verdict(&runs(ten(1000.0)), &runs(ten(1030.0))), (Verdict::Same, None));
}

#[test]
fn few_repetitions_can_not_tell_and_say_how_many_would() {
    let few = |level| runs(ten(level).into_iter().take(3));
    let (said, needed) = verdict(&few(1000.0), &few(2000.0));
    assert_eq!(
        said,
        Verdict::CantTell,
        "three a side can be in order by chance, one time in ten"
    );
    assert_eq!(needed, Some(5), "2 / C(10, 5) is below 1 %");
    assert_eq!(
        verdict(&runs([1000.0]), &runs([1000.0])).0,
        Verdict::CantTell,
        "one a side says nothing"
    );
}

#[test]
fn one_long_run_is_one_value() {
    let mut long = runs([1000.0, 1300.0]);
    for row in &mut long {
        row.pauses = Some(1_000_000);
    }
    assert_eq!(verdict(&long, &long.clone()).0, Verdict::CantTell);
}

#[test]
fn values_that_scatter_beyond_what_matters_can_not_be_called_the_same() {
    let wild = |shift: f64| runs((0..10).map(move |index| 1000.0 + shift + 100.0 * f64::from(index * 7 % 10)));
    let (said, needed) = verdict(&wild(0.0), &wild(5.0));
    assert_eq!(said, Verdict::CantTell);
    assert!(needed > Some(10), "{needed:?}");
}

#[test]
fn what_only_one_side_has_is_left_out() {
    let mut other = runs(ten(1000.0));
    for row in &mut other {
        row.ring_entries = Some(65536);
    }
    assert!(compare(&runs(ten(1000.0)), &other).is_empty());
    assert!(compare(&[], &other).is_empty());
}

#[test]
fn an_unchanged_candidate_is_flagged_as_rarely_as_promised() {
    let mut rng = SmallRng::seed_from_u64(11);
    // Spread far beyond the least change, so that only the test keeps it from being flagged.
    let mut sweep = || -> Vec<Summary> {
        let mut all = Vec::new();
        for cell in 0..4 {
            let mut rows = runs((0..8).map(|_| 1000.0 * (0.5 + rng.random::<f64>())).collect::<Vec<_>>());
            for row in &mut rows {
                row.ring_entries = Some(1024 << cell);
                row.stall_p50_us = Some(500.0 * (0.5 + rng.random::<f64>()));
                row.harvest_ns_entry = Some(4.0 + 4.0 * rng.random::<f64>());
            }
            all.extend(rows);
        }
        all
    };
    let flagged = (0..100)
        .filter(|_| {
            let comparisons = compare(&sweep(), &sweep());
            comparisons
                .iter()
                .any(|one| matches!(one.verdict, Verdict::Regressed | Verdict::Improved))
        })
        .count();
    // Without the correction for being many it would be eleven, and three or fewer once in 500 times.
    assert!(flagged <= 3, "{flagged} of 100 checks, expected 1");
}
