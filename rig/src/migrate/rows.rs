//! Migrations as rows of the recording.

use std::time::Duration;

use dirtyrig_guests::Program;
use dirtyrig_limiter::{law::migration::Plan, units::Quota};

use super::{
    cell::{Outcome, Setup},
    course::{Course, Ended, Pass, Verdict},
    drive::Order,
};
use crate::{
    qemu::binary::Binary,
    recording::migrations::{MigrationRow, PassRow},
};

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The programs, as they are given.
pub fn guest(programs: &[Program]) -> String {
    let names: Vec<String> = programs.iter().map(ToString::to_string).collect();
    names.join("+")
}

/// A pass.
pub fn of_pass(cell: u32, pass: &Pass) -> PassRow {
    PassRow {
        cell,
        pass: pass.number,
        t_s: pass.at.as_secs_f64(),
        left_mib: pass.left_mib,
        sent_mib: pass.sent_mib,
        rate_mib_s: pass.rate.map(|rate| rate.0),
        quota_mib_s: pass.quota.map(Quota::mib_per_sec),
        dirtied_pages: pass.dirtied_pages,
        throttle_pct: pass.throttle_pct,
        expected_end_s: pass.expected_end.map(|end| end.as_secs_f64()),
    }
}

/// What the monitor alone says of it.
pub fn of_course(cell: u32, order: &Order, plan: Option<&Plan>, course: &Course, verdict: &Verdict) -> MigrationRow {
    MigrationRow {
        cell,
        strategy: order.strategy.to_string(),
        vcpus: order.circumstances.vcpus as u64,
        memory_mib: order.circumstances.memory.to_mib(),
        link_mib_s: order.circumstances.bandwidth.0,
        promised_total_s: order.promise.within.as_secs_f64(),
        promised_blackout_ms: ms(order.promise.downtime),
        total_s: course.total.as_secs_f64(),
        ..of_any(plan, course, verdict)
    }
}

/// What the guest says of it.
pub fn of_outcome(cell: u32, binary: &Binary, setup: &Setup, outcome: &Outcome) -> MigrationRow {
    let truth = &outcome.truth;
    MigrationRow {
        cell,
        vmm: format!("QEMU {}", binary.version),
        strategy: setup.strategy.to_string(),
        guest: guest(&setup.guest.programs),
        vcpus: setup.guest.programs.len() as u64,
        ring_entries: Some(setup.guest.ring_entries),
        memory_mib: setup.guest.total_mib() as f64,
        link_mib_s: setup.link.rate().0,
        seed: Some(setup.guest.seed),
        promised_total_s: setup.promise.within.as_secs_f64(),
        promised_blackout_ms: ms(setup.promise.downtime),
        total_s: truth.total.unwrap_or(outcome.course.total).as_secs_f64(),
        blackout_ms: truth.blackout.map(ms),
        blackout_error_ms: truth.blackout.map(|_| ms(truth.blackout_error)),
        longest_stall_ms: Some(ms(truth.longest_stall)),
        free_mib_s: outcome.free.map(|rate| rate.0),
        logged_mib_s: outcome.logged.map(|rate| rate.0),
        limited_mib_s: outcome.limited.map(|rate| rate.0),
        differing_pages: outcome.differing_pages,
        disturbed: Some(outcome.is_disturbed()),
        ..of_any(outcome.plan.as_ref(), &outcome.course, &outcome.verdict)
    }
}

fn of_any(plan: Option<&Plan>, course: &Course, verdict: &Verdict) -> MigrationRow {
    let ended = match course.ended {
        Ended::Completed => "completed",
        Ended::Failed(_) => "failed",
        Ended::Cancelled => "cancelled",
        Ended::Left => "left",
    };
    MigrationRow {
        quota_mib_s: plan.map(|plan| plan.quota.mib_per_sec()),
        free_first_pass: plan.map(|plan| plan.free_until.is_some()),
        expected_total_s: plan.map(|plan| plan.total.expected.as_secs_f64()),
        bound_total_s: plan.map(|plan| plan.total.bound.as_secs_f64()),
        expected_blackout_ms: plan.map(|plan| ms(plan.blackout.expected)),
        bound_blackout_ms: plan.map(|plan| ms(plan.blackout.bound)),
        ended: ended.to_owned(),
        kept: verdict.is_kept(),
        why: verdict.broken.join("; ").replace(['\n', '\r'], " "),
        qemu_downtime_ms: course.qemu_downtime.map(ms),
        limited_from_s: course.limited_from.map(|at| at.as_secs_f64()),
        passes: course.passes.last().map_or(0, |pass| pass.number),
        sent_mib: course.sent_mib,
        ..MigrationRow::default()
    }
}
