//! Runs the cells of a plan that are not finished yet.

use anyhow::Context;
use dirtyrig_limiter::costs::RingCosts;

use super::{
    listen::{self, Listener},
    plan::{Plan, PlannedCell},
};
use crate::{
    analysis::{CellFacts, add_probes, summarize},
    engine::{
        Interrupted,
        cell::{CellResult, Sink, Watch, run_cell},
        facts::facts,
        interrupt::Clock,
        target::Target,
    },
    model::Summary,
    recording::Recorder,
    scenario::{Scenario, spec::VmSpec},
};

/// Builds the VM of a cell.
pub type Build<'a> = &'a dyn Fn(&VmSpec) -> anyhow::Result<Box<dyn Target>>;

/// Who is told how a sweep is going; it watches each cell as well.
pub trait SweepWatch: Watch {
    /// A cell begins.
    fn began(&mut self, cell: &PlannedCell, scenario: &Scenario);
    /// A cell was disturbed, for the reason given; whether it will be run `again`, or is kept with a mark.
    fn disturbed(&mut self, _cell: &PlannedCell, _reason: &str, _again: bool) {}
    /// A cell is finished, and its summary recorded.
    fn finished(&mut self, cell: &PlannedCell, summaries: &[Summary]);
}

/// Runs what is missing of `plan` in `recorder`. Whatever ends it early, finished cells are kept and nothing is left of
/// the one that was being run.
pub fn execute(
    plan: &Plan,
    recorder: &mut Recorder,
    build: Build<'_>,
    watch: &mut dyn SweepWatch,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let mut machine = listen::Machine::of(&recorder.manifest().machine);
    listened(plan, recorder, build, watch, clock, &mut machine)
}

/// The same, with somebody else to listen to the machine.
fn listened(
    plan: &Plan,
    recorder: &mut Recorder,
    build: Build<'_>,
    watch: &mut dyn SweepWatch,
    clock: &dyn Clock,
    listener: &mut dyn Listener,
) -> anyhow::Result<()> {
    for planned in &plan.cells {
        if recorder.is_finished(planned.cell) {
            continue;
        }
        let scenario = planned.scenario()?;
        for tries_left in (0..=plan.repeat_disturbed).rev() {
            watch.began(planned, &scenario);
            listener.begin();
            let outcome = build(&scenario.vm).context("can't start the guest").and_then(|target| {
                let number = (planned.cell, planned.repetition);
                run_on(target, number, &scenario, recorder, watch, clock)
            });
            let heard = listener.end();
            let mut summaries = match outcome {
                Ok((_, summaries)) => summaries,
                Err(error) => {
                    recorder.abandon_cell()?;
                    let title = planned.title();
                    return Err(error.context(format!("cell {} ({title}) was not finished", planned.cell)));
                }
            };
            let (reason, again) = (heard.reason(), tries_left > 0);
            if !reason.is_empty() {
                watch.disturbed(planned, &reason, again);
                if again {
                    recorder.abandon_cell()?;
                    continue;
                }
            }
            heard.write(&mut summaries);
            recorder.append_summaries(planned.cell, &summaries)?;
            watch.finished(planned, &summaries);
            break;
        }
    }
    Ok(())
}

/// Runs a cell on a target, takes that down, and sums the cell up.
pub fn run_on(
    mut target: Box<dyn Target>,
    number: (u32, u32),
    scenario: &Scenario,
    sink: &mut dyn Sink,
    watch: &mut dyn Watch,
    clock: &dyn Clock,
) -> anyhow::Result<(CellResult, Vec<Summary>)> {
    let (cell, repetition) = number;
    let facts = facts(cell, repetition, &*target, scenario);
    let result = run_cell(&mut *target, &facts, scenario, sink, watch, clock);
    take_down(target, &facts, result)
}

/// Takes the target of a cell down and sums the cell up.
pub fn take_down(
    target: Box<dyn Target>,
    facts: &CellFacts,
    result: anyhow::Result<CellResult>,
) -> anyhow::Result<(CellResult, Vec<Summary>)> {
    let result = match (result, target.stop()) {
        (Ok(result), Ok(())) => result,
        (Ok(_), Err(error)) => return Err(error.context("the guest failed")),
        // What killed the guest says more than what the engine saw of it.
        (Err(error), Err(cause)) if !error.is::<Interrupted>() => return Err(cause.context(error)),
        (Err(error), _) => return Err(error),
    };
    let mut summaries = summarize(facts, &result.samples, &result.stalls);
    for row in &mut summaries {
        row.harvest_ns_entry = result.ring_costs.and_then(RingCosts::harvest_ns_entry);
        row.reset_ns_entry = result.ring_costs.and_then(RingCosts::reset_ns_entry);
    }
    if let Some(probed) = &result.probed {
        add_probes(&mut summaries, &result.samples, probed);
    }
    Ok((result, summaries))
}

#[cfg(test)]
mod tests;
