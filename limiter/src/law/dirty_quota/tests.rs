use proptest::prelude::*;

use super::*;

fn quota(mib_per_sec: f64) -> Quota {
    Quota::new(mib_per_sec).expect("a quota")
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One vCPU a quota.
fn machine(quotas: &[f64]) -> DirtyQuota {
    let mut law = DirtyQuota::new(Duration::ZERO);
    for (vcpu, &mib_per_sec) in quotas.iter().enumerate() {
        law.set_quota(Duration::ZERO, vcpu, Some(quota(mib_per_sec)));
    }
    law
}

#[test]
fn a_vcpu_sleeps_to_the_end_of_its_interval() {
    // 25 MiB/s: 64 pages in 10 ms.
    let mut law = machine(&[25.0]);
    assert_eq!(law.grant(0), Some(Pages(64)));
    assert_eq!(law.charge(ms(1), 0, Pages(63)), Duration::ZERO, "a page is left");
    assert_eq!(law.charge(ms(2), 0, Pages(1)), ms(8));
    assert_eq!(law.pause(ms(10), 0), Duration::ZERO);
    assert_eq!(law.grant(0), Some(Pages(64)));
}

#[test]
fn the_quota_that_it_has_already_takes_nothing_away() {
    // Half a page per interval: two of them make one.
    let mut law = machine(&[0.195_312_5]);
    assert_eq!(law.pause(ms(10), 0), Duration::ZERO);
    assert_eq!(law.grant(0), Some(Pages(1)));
    law.set_quota(ms(10), 0, Some(quota(0.195_312_5)));
    assert_eq!(law.grant(0), Some(Pages(1)));
}

#[test]
fn what_one_did_not_claim_another_draws() {
    let mut law = machine(&[25.0, 25.0]);
    // vCPU 1 takes 30 ms over its first 64 pages, and so leaves 20 ms' worth.
    assert_eq!(law.charge(ms(30), 1, Pages(64)), Duration::ZERO);
    // vCPU 0 spends its own, then 128 pages of the pool in two draws, then sleeps.
    law.charge(ms(30), 0, Pages(64));
    assert_eq!(
        law.charge(ms(30), 0, Pages(64)),
        Duration::ZERO,
        "its own 20 ms are in the pool as well"
    );
    for _ in 0..3 {
        assert_eq!(law.grant(0), Some(Pages(64)));
        assert_eq!(law.charge(ms(30), 0, Pages(64)), Duration::ZERO);
    }
    assert_eq!(law.charge(ms(30), 0, Pages(64)), ms(10));
}

#[test]
fn an_overrun_draws_nothing_and_is_slept_off_in_intervals() {
    let mut law = machine(&[25.0, 25.0]);
    law.charge(ms(1000), 1, Pages(64));
    // 128 pages too many: two intervals to pay for them, and one to have any.
    assert_eq!(law.charge(ms(1000), 0, Pages(64 + 64 + 128)), ms(10));
    assert_eq!(law.pause(ms(1010), 0), ms(10));
    assert_eq!(law.grant(0), Some(Pages(0)));
    assert_eq!(
        law.pause(ms(1020), 0),
        Duration::ZERO,
        "out of debt, it draws on the pool"
    );
}

#[test]
fn fractions_of_a_page_add_up() {
    // 0.25 MiB/s: 0.64 pages in an interval.
    let mut law = machine(&[0.25]);
    let (mut now, mut pages) = (Duration::ZERO, 0);
    while now < Duration::from_secs(10) {
        match law.pause(now, 0) {
            Duration::ZERO => {
                let grant = law.grant(0).expect("has a limit");
                pages += grant.0;
                now += law.charge(now, 0, grant);
            }
            pause => now += pause,
        }
    }
    assert!((639..=641).contains(&pages), "{pages} of 640");
}

#[test]
fn a_vcpu_without_a_limit_is_left_alone() {
    let mut law = machine(&[25.0]);
    assert_eq!(law.grant(1), None);
    assert_eq!(law.charge(ms(1), 1, Pages(1_000_000)), Duration::ZERO);
    law.set_quota(ms(1), 0, None);
    assert_eq!(law.grant(0), None);
    assert_eq!(law.charge(ms(1), 0, Pages(1_000_000)), Duration::ZERO);
}

#[test]
fn setting_a_limit_again_gives_no_new_interval() {
    let mut law = machine(&[25.0]);
    law.charge(ms(1), 0, Pages(64));
    law.set_quota(ms(1), 0, Some(quota(50.0)));
    assert_eq!(law.grant(0), Some(Pages(0)));
    assert_eq!(law.pause(ms(1), 0), ms(9));
}

#[test]
fn a_smaller_limit_takes_the_rest_of_the_interval_with_it() {
    let mut law = machine(&[500.0]);
    assert_eq!(law.grant(0), Some(Pages(1280)));
    law.set_quota(ms(1), 0, Some(quota(25.0)));
    assert_eq!(law.grant(0), Some(Pages(64)));
}

#[test]
fn the_pool_ends_with_the_last_limit() {
    let mut law = machine(&[25.0, 25.0]);
    law.charge(ms(1000), 1, Pages(64));
    law.set_quota(ms(1000), 0, None);
    law.set_quota(ms(1000), 1, None);
    law.set_quota(ms(1000), 0, Some(quota(25.0)));
    assert_eq!(law.charge(ms(1000), 0, Pages(64)), ms(10), "nothing to draw on");
}

proptest! {
    #[test]
    fn all_together_never_exceed_their_quotas_and_one_interval(
        quotas in proptest::collection::vec(0.01..2_000.0, 1..5),
        steps in proptest::collection::vec((0_usize..5, 0_u64..=1000, 0_u64..30_000_000, 0_u64..5_000_000), 1..200),
    ) {
        let mut law = machine(&quotas);
        let pages_per_sec: f64 = quotas.iter().sum::<f64>() * 256.0;
        let (mut now, mut pages) = (Duration::ZERO, 0);
        for (vcpu, of_1000, forward, back) in steps {
            let vcpu = vcpu % quotas.len();
            now += Duration::from_nanos(forward);
            law.pause(now.saturating_sub(Duration::from_nanos(back)), vcpu);
            let used = law.grant(vcpu).expect("has a limit").0 * of_1000 / 1000;
            law.charge(now, vcpu, Pages(used));
            pages += used;
            let most = pages_per_sec * 1.000_001 * (now + INTERVAL).as_secs_f64();
            prop_assert!(pages as f64 <= most + 1e-6, "{pages} of {most}");
        }
    }
}
