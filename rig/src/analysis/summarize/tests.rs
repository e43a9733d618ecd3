//! Cells whose summary can be worked out by hand.

use super::*;
use crate::model::Verdict;

const PAGES_PER_MIB: f64 = 256.0;

fn facts(vcpus: usize) -> CellFacts {
    CellFacts {
        cell: 3,
        repetition: 1,
        vmm: "rig".to_owned(),
        limiter: "qemu-7.2".to_owned(),
        guests: vec![Some("sequential".to_owned()); vcpus],
        guest_cycle: None,
        ring_entries: Some(65536),
        period: Duration::from_secs(1),
        memory_mib: Some(512),
        sees_pauses: true,
        law: LawFacts {
            period: Some(Duration::from_secs(1)),
            whole_rings: true,
            ring_cycles: false,
            cap_share: Some(0.01),
            tolerance_mib_s: Some(25.0),
        },
        measure_from_s: None,
    }
}

/// Samples each half second from `-warm_up_s` on; `rate` says quota and true rate at a time.
fn samples(vcpu: u32, warm_up_s: f64, seconds: f64, rate: impl Fn(f64) -> (Option<f64>, f64)) -> Vec<Sample> {
    let mut written = 0.0;
    let steps = ((warm_up_s + seconds) * 2.0).round() as u32;
    (0..=steps)
        .map(|step| {
            let t_s = f64::from(step) * 0.5 - warm_up_s;
            let (quota_mib_s, guest_mib_s) = rate(t_s);
            if step > 0 {
                written += guest_mib_s * 0.5 * PAGES_PER_MIB;
            }
            let exits = u64::from(step) * 2;
            Sample {
                cell: 3,
                vcpu,
                t_s,
                quota_mib_s,
                ring_mib_s: Some(guest_mib_s + 6.0),
                guest_mib_s: Some(guest_mib_s),
                guest_read_mib_s: Some(0.0),
                utilisation_pct: Some(if quota_mib_s.is_some() { 16.0 } else { 100.0 }),
                written_pages: Some(written as u64),
                harvested_pages: Some(written as u64),
                ring_full_exits: Some(exits),
                exits: Some(exits),
                asked_us: Some(exits * 1000),
                slept_us: Some(exits * 1100),
                ..Sample::default()
            }
        })
        .collect()
}

fn near(found: impl Into<Option<f64>>, expected: f64) {
    let found = found.into();
    assert!(
        found.is_some_and(|found| (found - expected).abs() <= 1e-6 * expected.abs().max(1.0)),
        "{found:?} is not {expected}"
    );
}

#[test]
fn a_cell_that_settles_is_measured_from_there() {
    // 1600 unlimited; limited it passes 128 on the way from 1600 and stays at 256.
    let rows = samples(0, 4.0, 30.0, |t_s| match t_s {
        // The first third of the warm-up is slow, and does not count.
        t_s if t_s <= -3.0 => (None, 400.0),
        t_s if t_s <= 0.0 => (None, 1600.0),
        t_s if t_s <= 2.0 => (Some(25.0), 128.0),
        _ => (Some(25.0), 256.0),
    });
    let summaries = summarize(&facts(1), &rows, &[]);
    let [row] = summaries.as_slice() else {
        panic!("{} rows for one vCPU", summaries.len());
    };
    assert_eq!((row.cell, row.vcpu, row.vcpus, row.repetition), (3, 0, 1, 1));
    near(row.unlimited_mib_s, 1600.0);
    near(row.settle_s.expect("it settles"), 2.0);
    near(row.measured_s, 28.0);
    near(row.guest_mib_s, 256.0);
    near(row.guest_sd_mib_s, 0.0);
    near(row.ring_mib_s, 262.0);
    near(row.overshoot_pct, 50.0);
    near(row.error_mib_s.expect("it has a quota"), 231.0);
    near(row.error_pct.expect("it has a quota"), 924.0);
    near(row.utilisation_pct, 16.0);
    near(row.ring_full_per_s, 4.0);
    assert_eq!((row.asked_us, row.slept_us), (Some(112_000), Some(123_200)));
    near(row.predicted_floor_mib_s, 256.0);
    near(row.cap_floor_mib_s, 16.0);
    assert_eq!(row.verdict, Verdict::FloorBound, "{}", row.reason);
}

#[test]
fn what_lies_before_the_last_change_of_the_quota_does_not_count() {
    let rows = samples(0, 0.0, 40.0, |t_s| {
        if t_s <= 20.0 {
            (Some(500.0), 500.0)
        } else {
            (Some(100.0), 100.0)
        }
    });
    let row = &summarize(&facts(1), &rows, &[])[0];
    near(row.settle_s.expect("it settles at once"), 0.0);
    near(row.measured_s, 20.0);
    near(row.guest_mib_s, 100.0);
    assert_eq!(row.verdict, Verdict::Held, "{}", row.reason);
    assert_eq!(row.unlimited_mib_s, None, "there was no warm-up");
}

#[test]
fn the_engine_may_say_where_to_measure() {
    let rows = samples(0, 2.0, 20.0, |t_s| (Some(100.0).filter(|_| t_s > 0.0), 100.0));
    let facts = CellFacts {
        measure_from_s: Some(15.0),
        ..facts(1)
    };
    near(summarize(&facts, &rows, &[])[0].measured_s, 5.0);
}

#[test]
fn a_cell_that_never_settles_says_so_and_is_measured_over_its_second_half() {
    let rows = samples(0, 2.0, 20.0, |t_s| {
        let limited = t_s > 0.0;
        (
            Some(100.0).filter(|_| limited),
            if limited { 1600.0 - 70.0 * t_s } else { 1600.0 },
        )
    });
    let row = &summarize(&facts(1), &rows, &[])[0];
    assert_eq!(
        (row.verdict, row.settle_s),
        (Verdict::NotSettled, None),
        "{}",
        row.reason
    );
    near(row.measured_s, 10.0);
}

#[test]
fn vcpus_are_summed_up_apart() {
    let mut rows = samples(0, 2.0, 20.0, |t_s| (Some(300.0).filter(|_| t_s > 0.0), 300.0));
    rows.extend(samples(1, 2.0, 20.0, |_| (None, 1500.0)));
    rows.sort_by(|a, b| a.t_s.total_cmp(&b.t_s));
    let summaries = summarize(&facts(2), &rows, &[]);
    assert_eq!(summaries.len(), 2);
    near(summaries[0].guest_mib_s, 300.0);
    near(summaries[1].guest_mib_s, 1500.0);
    near(summaries[1].unlimited_mib_s, 1500.0);
    assert_eq!(summaries[1].verdict, Verdict::Unlimited);
    assert_eq!(summaries[1].error_mib_s, None);
}

#[test]
fn pauses_count_from_the_measured_part_on_and_by_vcpu() {
    let rows = samples(0, 2.0, 20.0, |t_s| (Some(300.0).filter(|_| t_s > 0.0), 300.0));
    let stall = |vcpu, at_s, length_us, asked_us, slept_us| Stall {
        vcpu,
        at: Duration::from_secs(at_s),
        length: Duration::from_micros(length_us),
        asked: Duration::from_micros(asked_us),
        slept: Duration::from_micros(slept_us),
    };
    let facts = CellFacts {
        measure_from_s: Some(5.0),
        ..facts(1)
    };
    let stalls = [
        stall(0, 3, 9_000_000, 100, 9_000_000),
        stall(1, 10, 8_000_000, 100, 8_000_000),
        stall(0, 6, 200, 100, 150),
        stall(0, 7, 300, 250, 50),
        stall(0, 8, 40, 0, 0),
    ];
    let row = &summarize(&facts, &rows, &stalls)[0];
    assert_eq!(row.pauses, Some(3));
    near(row.stall_p50_us, 200.0);
    near(row.stall_max_us, 300.0);
    near(row.lateness_p50_us, -200.0);
    near(row.lateness_p99_us, 50.0);
}

#[test]
fn a_vcpu_without_samples_has_no_row() {
    let rows = summarize(&facts(2), &samples(1, 2.0, 5.0, |_| (None, 10.0)), &[]);
    assert_eq!(
        rows.iter().map(|row| (row.vcpu, row.vcpus)).collect::<Vec<_>>(),
        [(1, 1)],
        "one row finishes the cell"
    );
    assert!(summarize(&facts(2), &[], &[]).is_empty());
}

#[test]
fn one_sample_is_too_short_but_no_error() {
    let rows = samples(0, 0.0, 0.0, |_| (Some(100.0), 50.0));
    let row = &summarize(&facts(1), &rows, &[])[0];
    assert_eq!(row.verdict, Verdict::Unknown, "{}", row.reason);
    assert_eq!(
        (row.guest_mib_s, row.utilisation_pct, row.ring_full_per_s),
        (None, None, None)
    );
}

/// The same samples of a guest that keeps no counter: what it wrote was logged.
fn untold(mut rows: Vec<Sample>) -> Vec<Sample> {
    for row in &mut rows {
        (row.guest_mib_s, row.guest_read_mib_s) = (None, None);
        (row.written_pages, row.read_pages) = (None, None);
    }
    rows
}

/// Three vCPUs that share 20 MiB/s: one takes what the others leave, and none is steady.
fn shared() -> Vec<Sample> {
    let share = |vcpu: u32, t_s: f64| {
        let swing = 4.0 * (t_s + f64::from(vcpu) * 2.0 * std::f64::consts::FRAC_PI_3).sin();
        20.0 / 3.0 + if t_s > 0.0 { swing } else { 500.0 }
    };
    let mut rows: Vec<Sample> = (0..3)
        .flat_map(|vcpu| samples(vcpu, 2.0, 30.0, |t_s| (None, share(vcpu, t_s))))
        .collect();
    rows.sort_by(|a, b| a.t_s.total_cmp(&b.t_s));
    for row in rows.iter_mut().filter(|row| row.t_s > 0.0) {
        row.vm_quota_mib_s = Some(20.0);
    }
    rows
}

fn without_period() -> CellFacts {
    CellFacts {
        law: LawFacts {
            period: None,
            whole_rings: false,
            ring_cycles: false,
            cap_share: None,
            tolerance_mib_s: None,
        },
        ..facts(3)
    }
}

#[test]
fn a_quota_of_the_vm_is_judged_by_the_sum_whoever_keeps_the_count() {
    for (rows, basis) in [(shared(), ""), (untold(shared()), "; by the pages logged")] {
        for row in summarize(&without_period(), &rows, &[]) {
            assert_eq!(row.verdict, Verdict::Held, "{}", row.reason);
            assert!(
                row.reason
                    .starts_with("all vCPUs together: 20.0 MiB/s is within 10 % of 20.0 MiB/s")
                    && row.reason.contains(basis),
                "{}",
                row.reason
            );
            assert_eq!(row.vm_guest_mib_s.is_some(), basis.is_empty());
            let (limited, free) = (row.ring_median_mib_s, row.unlimited_mib_s);
            assert!(limited < Some(20.0) && free > Some(400.0), "{limited:?}, {free:?}");
            assert!((row.vm_ring_mib_s.expect("counted") - 20.0).abs() < 1.0);
        }
    }
}

#[test]
fn a_log_that_stays_empty_says_nothing() {
    let mut rows = untold(samples(0, 2.0, 20.0, |t_s| (Some(300.0).filter(|_| t_s > 0.0), 300.0)));
    for row in &mut rows {
        // Logging goes on with the limit, as QEMU's own limiter does it.
        row.harvested_pages = row.harvested_pages.filter(|_| row.t_s > 0.0).or(Some(0));
    }
    let base = rows
        .iter()
        .find(|row| row.t_s > 0.0)
        .and_then(|row| row.harvested_pages);
    for row in rows.iter_mut().filter(|row| row.t_s > 0.0) {
        row.harvested_pages = row.harvested_pages.zip(base).map(|(now, base)| now - base);
    }
    let row = &summarize(&facts(1), &rows, &[])[0];
    assert_eq!((row.unlimited_mib_s, row.cap_floor_mib_s), (None, None));
    assert_eq!(row.verdict, Verdict::Held, "{}", row.reason);

    for row in &mut rows {
        row.harvested_pages = Some(0);
    }
    let row = &summarize(&facts(1), &rows, &[])[0];
    assert_eq!((row.verdict, row.unlimited_mib_s), (Verdict::Unknown, None));
    assert!(row.reason.contains("no page was logged"), "{}", row.reason);
}
