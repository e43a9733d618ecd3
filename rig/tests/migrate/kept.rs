//! Promises that are kept, and what becomes of a migration without one.

use std::time::Duration;

use dirtyrig_rig::{
    engine::interrupt::Interrupt,
    migrate::{
        cell::{self, Outcome, Setup},
        course::Ended,
        error::MigrateError,
        strategy::Strategy,
    },
    qemu::binary::Binary,
};
use libtest_mimic::Failed;

use crate::{LINK_MIB_S, Told, promised, setup};

fn migrate(binary: &Binary, setup: &Setup) -> Result<(Outcome, Told), Failed> {
    let mut told = Told::default();
    let outcome = cell::run(binary, setup, &mut told, &Interrupt::default())?;
    Ok((outcome, told))
}

fn is_kept(setup: &Setup, outcome: &Outcome, told: &Told) -> Result<(), Failed> {
    assert_eq!(outcome.verdict.broken, [""; 0], "{told:?}");
    assert_eq!(outcome.differing_pages, Some(0));
    let plan = outcome.plan.as_ref().ok_or("there is a plan")?;
    assert!(plan.total.bound <= setup.promise.within);
    assert!(told.passes.len() > 2, "it took passes: {told:?}");
    let quota = plan.quota.mib_per_sec();
    assert!(quota < LINK_MIB_S as f64 && told.highest_quota >= quota, "{told:?}");
    let limited = outcome.limited.ok_or("it was limited")?.0;
    assert!(limited < LINK_MIB_S as f64, "{limited}");
    Ok(())
}

pub(crate) fn a_promise_is_kept(binary: &Binary) -> Result<(), Failed> {
    let setup = promised(3.2)?;
    let (outcome, told) = migrate(binary, &setup)?;
    is_kept(&setup, &outcome, &told)?;
    let plan = outcome.plan.as_ref().ok_or("there is a plan")?;
    assert!(plan.free_until.is_some(), "there is time for a free first pass");
    let limited_from = outcome.course.limited_from.ok_or("it was limited")?;
    assert!(
        limited_from > Duration::from_millis(500),
        "not before: {limited_from:?}"
    );
    Ok(())
}

pub(crate) fn limited_from_the_start(binary: &Binary) -> Result<(), Failed> {
    let setup = promised(1.5)?;
    let (outcome, told) = migrate(binary, &setup)?;
    is_kept(&setup, &outcome, &told)?;
    assert_eq!(outcome.plan.and_then(|plan| plan.free_until), None);
    Ok(())
}

pub(crate) fn without_a_limit_it_never_ends(binary: &Binary) -> Result<(), Failed> {
    let mut setup = setup(Strategy::None);
    setup.promise.within = Duration::from_secs(5);
    setup.give_up = Duration::from_secs(6);
    let (outcome, told) = migrate(binary, &setup)?;
    assert_eq!(outcome.course.ended, Ended::Cancelled, "{told:?}");
    assert_eq!((outcome.truth.blackout, outcome.differing_pages), (None, None));
    assert_eq!(outcome.verdict.broken, ["it was cancelled"]);
    Ok(())
}

pub(crate) fn what_can_not_be_kept_is_refused(binary: &Binary) -> Result<(), Failed> {
    let setup = promised(0.9)?;
    let error = cell::run(binary, &setup, &mut Told::default(), &Interrupt::default()).expect_err("too little time");
    let text = error.to_string();
    assert!(
        matches!(error.downcast_ref(), Some(MigrateError::NotPromised { .. })),
        "{text}"
    );
    assert!(
        text.contains("a total time of at least") && text.contains("a bandwidth of at least"),
        "{text}"
    );
    Ok(())
}
