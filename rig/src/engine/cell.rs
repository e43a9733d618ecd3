//! One cell, from its warm-up to its last sample.
//!
//! ```text
//!  -warm_up            0                                              duration
//!     |----------------|------+------+--------- - - ---------------------|
//!     unlimited;       limits changes of the script   ends here at the latest, or, where it may,
//!     its last part    set                            once every limited vCPU has settled and been measured
//!     is measured
//! ```
//!
//! It runs on the caller's thread. Waits follow an absolute schedule, so that a late sample doesn't delay the next one,
//! and each of them ends at once when the interrupt is set. A cell that ends when told to takes that for its end: a last
//! sample, and what it has measured counts.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::Context;
use dirtyrig_limiter::{
    costs::RingCosts,
    limit::Which,
    units::{Pages, Quota},
};

use super::{
    Interrupted,
    interrupt::{Clock, Waited},
    limits::{Limits, Whom},
    measured::Measured,
    probing::Probing,
    sampler::Sampler,
    target::{Target, VcpuSnapshot},
};
use crate::{
    analysis::CellFacts,
    model::{ExitRow, KernelStall, Probed, Sample, Stall},
    scenario::{
        End, Scenario,
        script::{Action, Event},
    },
};

/// Time between lines of the stall log: each is a histogram of its own.
const STALLS_EVERY: Duration = Duration::from_secs(1);

/// How much of a cell that ends when told to stays in memory to be summed up, at least; after twice that, what is older
/// goes. Its rows are on the disk all the same.
const KEPT: Duration = Duration::from_hours(1);

/// Where the rows of a cell go while it runs.
pub trait Sink {
    /// Takes the rows of one sample.
    fn samples(&mut self, rows: &[Sample]) -> anyhow::Result<()>;
    /// Takes the stalls of an interval on the cell's clock.
    fn stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[Stall]) -> anyhow::Result<()>;
    /// Takes the pauses that the probes saw in the same interval.
    fn kernel_stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[KernelStall]) -> anyhow::Result<()>;
    /// Takes the exits of the whole cell, by reason.
    fn exits(&mut self, rows: &[ExitRow]) -> anyhow::Result<()>;
}

/// Who is told how a cell is going.
pub trait Watch {
    /// A sample was taken: one row per vCPU.
    fn sampled(&mut self, rows: &[Sample]);
    /// A change of the script was made.
    fn changed(&mut self, event: Event);
}

/// What a finished cell leaves to be summarised.
#[derive(Clone, Debug)]
pub struct CellResult {
    /// Rate of each vCPU in MiB/s before any limit was set, by the guest's counter if it keeps one.
    pub unlimited_mib_s: Vec<Option<f64>>,
    /// All of its samples.
    pub samples: Vec<Sample>,
    /// The stalls since the limits were set; their times are on the cell's clock.
    pub stalls: Vec<Stall>,
    /// What emptying the rings has cost since then, where the VMM tells.
    pub ring_costs: Option<RingCosts>,
    /// What the probes saw; `None` where they were not asked.
    pub probed: Option<Probed>,
}

/// Runs one cell on `target`; `facts` are its facts and `scenario` says what happens. The target goes on running:
/// stopping it is up to whoever started it.
pub fn run_cell(
    target: &mut dyn Target,
    facts: &CellFacts,
    scenario: &Scenario,
    sink: &mut dyn Sink,
    watch: &mut dyn Watch,
    clock: &dyn Clock,
) -> anyhow::Result<CellResult> {
    let probing = Probing::of(target, scenario.probes)?;
    let at = target.now();
    let first = target.snapshot()?;
    let sampler = Sampler::new(
        facts.cell,
        scenario.vm.limiter.period,
        at + scenario.warm_up,
        at,
        &first,
    );
    let run = Run {
        number: facts.cell,
        scenario,
        target,
        sink,
        watch,
        clock,
        sampler,
        measured: Measured::new(facts),
        samples: Vec::new(),
        stalls: Vec::new(),
        probing,
        kernel_stalls: Vec::new(),
    };
    run.run((at, first))
}

struct Run<'a> {
    number: u32,
    scenario: &'a Scenario,
    target: &'a mut dyn Target,
    sink: &'a mut dyn Sink,
    watch: &'a mut dyn Watch,
    clock: &'a dyn Clock,
    sampler: Sampler,
    measured: Measured<'a>,
    samples: Vec<Sample>,
    stalls: Vec<Stall>,
    probing: Option<Probing>,
    kernel_stalls: Vec<KernelStall>,
}

/// When a snapshot was taken, by the target's clock, and what it says.
type Shot = (Duration, Vec<VcpuSnapshot>);

impl Run<'_> {
    fn run(mut self, first: Shot) -> anyhow::Result<CellResult> {
        let unlimited_mib_s = self.warm_up(first)?;
        // Nothing was limited yet, so these are harvests without a throttle.
        self.target.take_stalls();
        let zero = self.target.now();
        let begun = self.clock.now();
        let costs_before = self.target.ring_costs();
        self.sampler.begin(zero);
        self.probing.as_mut().map_or(Ok(()), |probing| probing.begin(zero))?;
        self.set_first_limits()?;
        self.measure(zero, begun)?;
        let probed = self.finish_probing()?;
        Ok(CellResult {
            unlimited_mib_s,
            samples: self.samples,
            stalls: self.stalls,
            ring_costs: self
                .target
                .ring_costs()
                .zip(costs_before)
                .map(|(after, before)| after.since(before)),
            probed,
        })
    }

    fn finish_probing(&mut self) -> anyhow::Result<Option<Probed>> {
        let Some(probing) = self.probing.take() else {
            return Ok(None);
        };
        let probed = probing.finish(self.number, std::mem::take(&mut self.kernel_stalls))?;
        self.sink.exits(&probed.exits)?;
        Ok(Some(probed))
    }

    /// Lets the guest run unlimited and returns the rate of each vCPU over the last two thirds of that.
    fn warm_up(&mut self, first: Shot) -> anyhow::Result<Vec<Option<f64>>> {
        let begun = self.clock.now();
        let end = begun + self.scenario.warm_up;
        let measured_from = begun + self.scenario.warm_up / 3;
        let (mut from, mut last) = (first.clone(), first);
        let mut next = begun;
        while next < end {
            next = (next + self.scenario.sample_every).min(end);
            self.wait_until(next)?;
            last = self.sample()?;
            if next <= measured_from {
                from.clone_from(&last);
            }
        }
        let span = last.0.saturating_sub(from.0);
        let rate = |(now, then): (&VcpuSnapshot, &VcpuSnapshot)| {
            let pages = Pages(now.written_pages?.saturating_sub(then.written_pages?));
            pages.per(span).map(|rate| rate.0)
        };
        Ok(last.1.iter().zip(&from.1).map(rate).collect())
    }

    /// Sets the limits of the start: one command where all are the same, as a user would.
    fn set_first_limits(&mut self) -> anyhow::Result<()> {
        if let Some(quota) = self.scenario.vm_quota {
            self.limits(|limits| limits.set(Whom::Vm, quota))
                .with_context(|| format!("can't set a limit of {} for the whole VM", quota.rate()))?;
        }
        let quotas = &self.scenario.quotas;
        if let Some(&Some(quota)) = quotas.first()
            && quotas.iter().all(|&other| other == Some(quota))
        {
            return self.set(quota, Which::All);
        }
        for (vcpu, quota) in quotas.iter().enumerate() {
            if let Some(quota) = *quota {
                self.set(quota, Which::One(vcpu))?;
            }
        }
        Ok(())
    }

    /// Asks something of what limits the target.
    fn limits<T>(&mut self, ask: impl FnOnce(&dyn Limits) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let asked = ask(&*self.target.limits());
        asked.map_err(|error| self.target.explain(error))
    }

    fn set(&mut self, quota: Quota, which: Which) -> anyhow::Result<()> {
        self.limits(|limits| limits.set(Whom::Vcpus(which), quota))
            .with_context(|| format!("can't set a limit of {}", quota.rate()))
    }

    /// Samples and follows the script until the end.
    fn measure(&mut self, zero: Duration, begun: Instant) -> anyhow::Result<()> {
        let scenario = self.scenario;
        let end = begun + scenario.duration;
        let mut script = scenario.script.iter().copied().peekable();
        let mut next_sample = begun + scenario.sample_every;
        let mut stalls_from = Duration::ZERO;
        loop {
            let next_change = script.peek().map(|event| begun + event.at);
            if let Some(when) = next_change.filter(|&when| when < next_sample)
                && !self.is_told_before(when)?
            {
                let event = script.next().expect("it was just peeked at");
                self.change(event)?;
                continue;
            }
            let when = next_sample.min(end);
            let is_told = self.is_told_before(when)?;
            let (at, _) = self.sample()?;
            let t = at.saturating_sub(zero);
            let done = is_told
                || when == end
                || (scenario.end == End::WhenMeasured && script.peek().is_none() && self.measured.is_done());
            if done || t.saturating_sub(stalls_from) >= STALLS_EVERY {
                self.keep_stalls(zero, stalls_from..t)?;
                self.forget(t);
                stalls_from = t;
            }
            if done {
                return Ok(());
            }
            // A sample that came late, because the target was slow to answer, is not made up for.
            while next_sample <= self.clock.now() {
                next_sample += scenario.sample_every;
            }
        }
    }

    fn change(&mut self, event: Event) -> anyhow::Result<()> {
        match event.action {
            Action::Set(quota, which) => self.limits(|limits| limits.set(Whom::Vcpus(which), quota)),
            Action::Cancel(which) => self.limits(|limits| limits.cancel(Whom::Vcpus(which))),
            Action::SetVm(quota) => self.limits(|limits| limits.set(Whom::Vm, quota)),
            Action::CancelVm => self.limits(|limits| limits.cancel(Whom::Vm)),
            Action::SetBurst(burst) => self.limits(|limits| limits.set_burst(burst)),
            Action::Plug(vcpu) => self.target.plug(vcpu),
            Action::Unplug(vcpu) => self.target.unplug(vcpu),
        }
        .with_context(|| format!("the change `{event}` failed"))?;
        self.watch.changed(event);
        Ok(())
    }

    fn sample(&mut self) -> anyhow::Result<Shot> {
        let at = self.target.now();
        let shots = self.target.snapshot()?;
        self.probing.as_mut().map_or(Ok(()), |probing| probing.sample(at))?;
        let limits = self.limits(|limits| limits.query())?;
        let rows = self.sampler.rows(at, &shots, &limits.vcpus, limits.vm);
        self.sink.samples(&rows)?;
        if self.scenario.end == End::WhenMeasured {
            for row in &rows {
                let plugged = shots.get(row.vcpu as usize).is_some_and(|shot| shot.plugged);
                self.measured.push(row, plugged);
            }
        }
        self.watch.sampled(&rows);
        self.samples.extend(rows);
        Ok((at, shots))
    }

    fn keep_stalls(&mut self, zero: Duration, interval: Range<Duration>) -> anyhow::Result<()> {
        self.probing.as_mut().map_or(Ok(()), Probing::drain)?;
        let stalls = self.target.take_stalls().into_iter();
        let mut stalls: Vec<_> = stalls.map(|stall| stall.since(zero)).collect();
        self.sink.stalls(self.number, &interval, &stalls)?;
        if let Some(probing) = &mut self.probing {
            let mut seen = probing.stalls(&stalls);
            self.sink.kernel_stalls(self.number, &interval, &seen)?;
            self.kernel_stalls.append(&mut seen);
        }
        self.stalls.append(&mut stalls);
        Ok(())
    }

    /// Lets go of what is older than what is kept of a cell without end, `t` after its beginning.
    fn forget(&mut self, t: Duration) {
        let from = t.saturating_sub(KEPT);
        let is_old = |sample: &Sample| sample.t_s < from.as_secs_f64() - KEPT.as_secs_f64();
        if self.scenario.end == End::WhenTold && self.samples.first().is_some_and(is_old) {
            self.samples.retain(|sample| sample.t_s >= from.as_secs_f64());
            self.stalls.retain(|stall| stall.at >= from);
            self.kernel_stalls.retain(|stall| stall.at >= from);
        }
    }

    /// Waits until `when`; `true` if the cell was told to end before.
    fn is_told_before(&self, when: Instant) -> Result<bool, Interrupted> {
        match self.wait_until(when) {
            Err(Interrupted) if self.scenario.end == End::WhenTold => Ok(true),
            waited => waited.map(|()| false),
        }
    }

    fn wait_until(&self, when: Instant) -> Result<(), Interrupted> {
        match self.clock.wait_until(when) {
            Waited::Reached => Ok(()),
            Waited::Interrupted => Err(Interrupted),
        }
    }
}

#[cfg(test)]
mod tests;
