//! One migration between two QEMUs of ours, judged by the guest.

use std::{thread, time::Duration};

use anyhow::Context as _;
use dirtyrig_limiter::{
    law::migration::Plan,
    units::{MibPerSec, Pages},
};

use super::{
    bandwidth::Bandwidth,
    course::{Course, Ended, Verdict},
    drive::{Order, Watch, drive, promise},
    error::MigrateError,
    monitor::Monitor,
    pair::{Guest, Pair},
    promise::{Circumstances, Host, Promise, depth},
    sample::{Sample, sample},
    strategy::Strategy,
    truth::{self, Sampler, Truth},
};
use crate::{engine::interrupt::Interrupt, outside::Limiter, qemu::binary::Binary};

/// Over which the guest's own rate is taken, before it migrates.
const FREE_FOR: Duration = Duration::from_secs(1);
/// How long the guest is watched at the destination.
const AFTER: Duration = Duration::from_millis(200);
/// How long a guest may take to run at the destination after the source was told that it does.
const ARRIVAL: Duration = Duration::from_secs(5);
/// By then every page that was written before is logged when it is written again.
const SOON: Duration = Duration::from_millis(200);
/// A blackout that is known less exactly was disturbed by the machine.
const EXACT: Duration = Duration::from_millis(3);

/// What to migrate, over what, how.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The guest.
    pub guest: Guest,
    /// The link.
    pub link: Bandwidth,
    /// Who throttles.
    pub strategy: Strategy,
    /// What is promised.
    pub promise: Promise,
    /// The longest pause at once.
    pub max_stall: Duration,
    /// After which it is cancelled.
    pub give_up: Duration,
}

impl Setup {
    /// The part of a blackout that doesn't depend on what is left, at most.
    pub fn fixed(&self) -> Duration {
        order(self, None, memory(self), None).circumstances.beside()
    }
}

/// Memory that is sent: the guest's, and a MiB of firmware and tables.
fn memory(setup: &Setup) -> Pages {
    Pages((setup.guest.total_mib() + 1) * 256)
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan, where there was one.
    pub plan: Option<Plan>,
    /// The migration by the monitor.
    pub course: Course,
    /// The migration by the guest.
    pub truth: Truth,
    /// Its accesses before, when no page was logged.
    pub free: Option<MibPerSec>,
    /// Its accesses during the first pass until it was limited: what logging costs it.
    pub logged: Option<MibPerSec>,
    /// Its accesses while it was limited.
    pub limited: Option<MibPerSec>,
    /// Pages that differ at the destination; `None` if it didn't get there.
    pub differing_pages: Option<u64>,
    /// Kept or not, by the guest.
    pub verdict: Verdict,
}

impl Outcome {
    /// Accesses that the guest would have made had it been left alone.
    pub fn lost(&self) -> Option<Pages> {
        let would = self.free?.pages_per_sec() * self.truth.span.as_secs_f64();
        Some(Pages((would - self.truth.accesses.0 as f64).max(0.0) as u64))
    }

    /// Whether the machine kept the looks from seeing the blackout exactly. It doesn't depend on how long that was.
    pub fn is_disturbed(&self) -> bool {
        self.truth.blackout_error > EXACT
    }
}

/// The plan alone: what would be promised.
pub fn plan(setup: &Setup) -> Result<Plan, MigrateError> {
    promise(&order(setup, None, memory(setup), None))
}

fn order(setup: &Setup, uri: Option<String>, memory: Pages, sample: Option<Sample>) -> Order {
    let in_use = sample
        .as_ref()
        .map_or(Pages(setup.guest.memory_mib * 256), |sample| sample.in_use);
    Order {
        uri,
        strategy: setup.strategy,
        promise: setup.promise,
        circumstances: Circumstances {
            memory,
            in_use,
            dirtying: sample.map(|sample| sample.dirtying),
            vcpus: setup.guest.programs.len(),
            ring_entries: setup.guest.ring_entries,
            bandwidth: setup.link.rate(),
            max_stall: setup.max_stall,
            host: Host::here(),
        },
        // The link alone is to pace.
        max_bandwidth: Some(0),
        give_up: Some(setup.give_up),
    }
}

/// Runs it. It must be called by a thread that lives as long as the two QEMUs are to.
pub fn run(binary: &Binary, setup: &Setup, watch: &mut dyn Watch, interrupt: &Interrupt) -> anyhow::Result<Outcome> {
    let mut pair = Pair::start(binary, &setup.guest)?;
    let mut monitor = Monitor::connect(&pair.source.socket())?;
    monitor.check()?;
    let memory = monitor.memory()?;
    let uri = pair.connect(&mut monitor, setup.link)?;
    let sampler = Sampler::start(
        pair.source.memory(),
        pair.destination.memory(),
        setup.guest.programs.len(),
    );
    pair.settle(&setup.guest);
    // Meanwhile the guest's own rate is taken, too.
    let sample = sample(pair.source.pid(), &|| sampler.mark()).context("can't look at the guest's memory")?;
    let order = order(setup, Some(uri), memory, Some(sample));
    let planned = match setup.strategy {
        Strategy::Dirtyrig => {
            let plan = promise(&order)?;
            Some((plan, Limiter::attach(pair.source.pid(), depth(setup.max_stall))?))
        }
        _ => None,
    };
    let planned_ref = planned.as_ref().map(|(plan, limiter)| (plan, limiter));
    let course = drive(&mut monitor, &order, planned_ref, watch, interrupt)?;
    if course.ended == Ended::Completed {
        pair.arrived(ARRIVAL)?;
    }
    thread::sleep(AFTER);
    let from = course.begun.saturating_duration_since(sampler.begun());
    let looks = sampler.finish();
    let differing_pages = match course.ended {
        Ended::Completed => Some(pair.differences()?),
        _ => None,
    };
    let truth = truth::judge(&looks, from);
    let limited_from = course.limited_from.map(|at| from + at);
    // Before the first sync no page is logged, and so nobody limited.
    let logged_from = course.passes.first().map_or(from, |pass| from + pass.at);
    let stopped_at = course.stopped_at.map_or(from + course.total, |at| from + at);
    let mut verdict = course.judge_by(setup.promise, truth.total.unwrap_or(course.total), truth.blackout);
    if let Some(pages @ 1..) = differing_pages {
        verdict.broken.push(format!("{pages} pages differ at the destination"));
    }
    Ok(Outcome {
        free: truth::rate(&looks, from.saturating_sub(FREE_FOR), from),
        logged: truth::rate(&looks, logged_from, limited_from.unwrap_or(stopped_at)),
        limited: limited_from.and_then(|since| truth::rate(&looks, since.max(logged_from + SOON), stopped_at)),
        plan: planned.map(|(plan, _)| plan),
        course,
        truth,
        differing_pages,
        verdict,
    })
}
