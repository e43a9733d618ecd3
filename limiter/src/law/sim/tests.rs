//! What each of QEMU's laws does to a guest, against what real QEMU was seen to do on a machine where one vCPU dirties
//! 1,540 to 1,700 MiB/s unlimited.

use super::*;
use crate::law::LimiterKind::{Qemu10, Qemu72, QemuV11};

const UNLIMITED: f64 = 1650.0;
const ALL: [LimiterKind; 3] = [QemuV11, Qemu72, Qemu10];
const CUT_SHORT: [LimiterKind; 2] = [QemuV11, Qemu72];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A guest that has run unlimited for a while, then `quota` is set on its first vCPU.
fn limited(kind: LimiterKind, ring_entries: u32, period: Duration, unlimited: &[f64], quota: f64) -> Machine {
    let mut machine = Machine::new(kind, ring_entries, period, unlimited);
    machine.run(period * 2);
    machine.set_quota(0, Some(quota));
    machine
}

/// What one vCPU settles at.
fn settled(kind: LimiterKind, ring_entries: u32, quota: f64) -> Rates {
    let mut machine = limited(kind, ring_entries, secs(1), &[UNLIMITED], quota);
    machine.run(secs(120));
    machine.run(secs(600))[0]
}

fn assert_near(actual: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (actual - expected).abs() <= tolerance,
        "{what}: {actual} MiB/s, expected {expected} +- {tolerance}"
    );
}

#[test]
fn unlimited_it_reads_what_the_guest_does() {
    for kind in ALL {
        let rates = Machine::new(kind, 4096, secs(1), &[UNLIMITED]).run(secs(10))[0];
        assert_near(rates.read, UNLIMITED, 2.0, "read");
        assert_near(rates.truth, UNLIMITED, 2.0, "truth");
    }
}

#[test]
fn a_quota_above_the_floor_is_held_within_the_tolerance() {
    for kind in ALL {
        for (ring, quota) in [(4096, 500.0), (4096, 128.0), (65_536, 500.0), (65_536, 256.0)] {
            let rates = settled(kind, ring, quota);
            assert_near(rates.read, quota, 25.0, &format!("{kind}, ring {ring}, read"));
            assert_near(rates.truth, quota, 26.0, &format!("{kind}, ring {ring}, truth"));
        }
    }
}

#[test]
fn a_small_ring_settles_anywhere_from_0_to_50_at_a_quota_of_25() {
    for kind in ALL {
        let rates = settled(kind, 4096, 25.0);
        assert!(rates.read <= 50.0 && rates.truth <= 50.0, "{kind}: {rates:?}");
        assert!(rates.truth > 16.0, "{kind}: {rates:?}");
    }
}

#[test]
fn a_kick_that_ends_the_sleep_makes_the_floor_true() {
    for kind in CUT_SHORT {
        for quota in [128.0, 64.0, 25.0, 1.0] {
            let rates = settled(kind, 65_536, quota);
            assert_near(rates.read, 255.0, 1.0, &format!("{kind}, quota {quota}, read"));
            assert_near(rates.truth, 255.75, 1.0, &format!("{kind}, quota {quota}, truth"));
        }
    }
}

#[test]
fn a_sleep_that_runs_out_makes_the_floor_an_illusion() {
    for quota in [64.0, 25.0, 1.0] {
        let rates = settled(Qemu10, 65_536, quota);
        assert_near(rates.read, 255.0, 1.0, &format!("quota {quota}, read"));
        // Capped: one ring of 256 MiB in each 15.5 s.
        assert_near(rates.truth, 17.0, 2.0, &format!("quota {quota}, truth"));
    }
    let halfway = settled(Qemu10, 65_536, 128.0);
    assert_near(halfway.read, 255.0, 1.0, "quota 128, read");
    assert!((30.0..150.0).contains(&halfway.truth), "{halfway:?}");
}

#[test]
fn the_floor_is_ring_bytes_by_period() {
    for kind in CUT_SHORT {
        for (ring, ring_mib) in [(16_384, 64.0), (32_768, 128.0), (65_536, 256.0)] {
            for millis in [500, 1000, 2000] {
                let mut machine = limited(kind, ring, Duration::from_millis(millis), &[UNLIMITED], 1.0);
                machine.run(secs(300));
                let rates = machine.run(secs(100))[0];
                let floor = ring_mib * 1000.0 / millis as f64;
                assert_near(
                    rates.truth,
                    floor,
                    floor * 0.02,
                    &format!("{kind}, ring {ring}, {millis} ms"),
                );
            }
        }
    }
}

#[test]
fn nothing_is_throttled_below_one_percent() {
    let rates = settled(Qemu10, 4096, 1.0);
    assert_near(rates.truth, UNLIMITED / 100.0, 1.0, "the cap of 99 ring-full times");
    // The same with kicks, where 99 ring-full times are more than a period. (Where they are just less, as at 1,650
    // MiB/s, a second ring a period fits in before the kick, and the floor is twice as high.)
    for kind in CUT_SHORT {
        let mut machine = limited(kind, 4096, secs(1), &[1540.0], 1.0);
        machine.run(secs(120));
        assert_near(
            machine.run(secs(100))[0].truth,
            16.0,
            1.0,
            &format!("{kind}, one ring a period"),
        );
    }
}

#[test]
fn from_unlimited_one_step_lands_near_the_target() {
    let mut machine = limited(Qemu72, 4096, secs(1), &[UNLIMITED], 500.0);
    machine.run(secs(1));
    assert_near(machine.run(secs(1))[0].truth, 500.0, 25.0, "in the second period");
}

#[test]
fn a_change_while_throttled_crawls() {
    // Quotas before and after, and what real QEMU read 12 s after the change.
    for (before, after, read) in [(500.0, 100.0, 175.0), (100.0, 25.0, 50.0), (25.0, 300.0, 160.0)] {
        let mut machine = limited(Qemu72, 4096, secs(1), &[UNLIMITED], before);
        machine.run(secs(10));
        machine.set_quota(0, Some(after));
        let rates = machine.run(secs(13))[0];
        assert_near(rates.read, read, 20.0, &format!("{before} -> {after}"));
    }
}

#[test]
fn a_cancelled_limit_frees_the_vcpu_but_keeps_its_throttle() {
    let mut machine = limited(Qemu72, 4096, secs(1), &[UNLIMITED], 100.0);
    machine.run(secs(20));
    let held = machine.run(secs(5))[0].truth;
    machine.set_quota(0, None);
    machine.run(secs(1));
    assert_near(machine.run(secs(5))[0].truth, UNLIMITED, 2.0, "cancelled");
    machine.set_quota(0, Some(100.0));
    assert_near(machine.run(secs(1))[0].truth, held, 20.0, "set again");
}

#[test]
fn a_sleeper_that_is_waited_for_spoils_its_neighbours_reading() {
    let neighbours = |kind| {
        let mut machine = limited(kind, 65_536, secs(1), &[UNLIMITED, 400.0], 25.0);
        machine.run(secs(120));
        machine.run(secs(100))[1]
    };
    for kind in CUT_SHORT {
        assert_near(neighbours(kind).read, 400.0, 2.0, &format!("{kind}, read"));
    }
    let rates = neighbours(Qemu10);
    assert_near(rates.truth, 400.0, 2.0, "the neighbour is not slowed");
    assert!(
        rates.read > 10.0 * 400.0,
        "but what it did in 15 s counts as if done in one: {rates:?}"
    );
}
