//! What is expected: QEMU's rule, pass by pass, for the guest as it was seen to write. Its limit is solved again after each
//! sync, as it will be.
//!
//! A guest that is held to a quota does what it would do, slower. What it dirties in a time `t` is what it dirties, free, in
//! a shorter time `g`. It is charged a page once in a round of the log. So `g` is how long it takes, free, to write as many
//! distinct pages as the quota gives it in the round; less, if it waits for other things as well. A guest that writes the
//! same pages again and again is charged for them in every round, and comes to new ones late.

use super::{
    Dirtying, Log, Task,
    bounds::Start,
    held::{Held, held_from},
};
use crate::units::Pages;

/// Times in seconds.
pub(super) struct Forecast {
    pub(super) passes: u32,
    /// When the limit begins.
    pub(super) begin: f64,
    pub(super) total: f64,
    pub(super) blackout: f64,
    /// Pages that the guest doesn't write; 0 if nothing is known of its dirtying.
    pub(super) lost: f64,
}

/// How much of what is written hits what is still to be sent, as a part of what chance would do. A guest that writes at random
/// does just that, one that writes page after page half of it.
const OVERLAP: f64 = 0.75;

/// A round of the log may end at any moment of a pass: the mean of so many is taken.
const PHASES: u32 = 4;

/// More are not looked at: the bound on the total has long been passed.
const MOST_PASSES: u32 = 10_000;

/// The forecast from now on, with room for `buffer` pages between the VMM and the link.
pub(super) fn forecast(task: &Task, held: &Held, start: Start, buffer: Pages) -> Forecast {
    let vmm = &task.vmm;
    let memory = (task.memory.0 as f64).max(1.0);
    // What fits into the buffers is for the VMM as good as sent.
    let left = ((task.left.0 as f64).min(memory) - buffer.0 as f64).max(0.0);
    let bandwidth = task.bandwidth.pages_per_sec();
    let (step, sync) = (vmm.usual_step.as_secs_f64(), vmm.sync.expected.as_secs_f64());
    let (mut quota, mut threshold) = (held.quota, held.worst.threshold);
    let setup = vmm.setup.expected.as_secs_f64();
    // The first pass.
    let unsent = match start {
        Start::AtOnce => left,
        Start::AfterFirstPass => held.worst.unsent_at_start().min(left),
    };
    let begin = match start {
        Start::AtOnce => 0.0,
        Start::AfterFirstPass => setup + (left - unsent) / bandwidth,
    };
    let mut dirty = match start {
        Start::AtOnce => limited(task, quota, setup),
        Start::AfterFirstPass => task
            .dirtying
            .as_ref()
            .map_or(memory, |dirtying| dirtying.distinct(begin).min(memory)),
    };
    let rest = stepped((unsent - threshold).max(0.0) / bandwidth, step).min(unsent / bandwidth);
    dirty += limited(task, quota, rest + sync);
    let mut known = (unsent - bandwidth * rest).max(0.0);
    let mut now = begin.max(setup) + rest + sync;
    let mut lost = lost_in(task, quota, now - begin);
    let mut passes = 1;
    loop {
        // Of what was written, a part is to be sent anyway.
        let left = (known + dirty * (1.0 - OVERLAP * (known / memory).min(1.0))).min(memory);
        if left < threshold || passes == MOST_PASSES {
            passes += 1;
            let after_stop = left + limited(task, quota, vmm.stop.as_secs_f64() / 2.0);
            let to_send = after_stop + vmm.buffered.expected.0 as f64;
            let blackout = to_send / bandwidth + vmm.fixed.expected.as_secs_f64();
            lost += task
                .dirtying
                .as_ref()
                .map_or(0.0, |dirtying| dirtying.rate() * blackout);
            return Forecast {
                passes,
                begin,
                total: now + blackout,
                blackout,
                lost,
            };
        }
        let rest = Task {
            left: Pages(left.ceil() as u64),
            within: task.within.saturating_sub(std::time::Duration::from_secs_f64(now)),
            vmm: super::Vmm {
                setup: super::Bounded::default(),
                ..*vmm
            },
            ..task.clone()
        };
        if let Some(held) = held_from(&rest, Start::AtOnce) {
            (quota, threshold) = (held.quota, held.worst.threshold);
        }
        let pass = stepped((left - threshold) / bandwidth, step).min(left / bandwidth);
        known = (left - bandwidth * pass).max(0.0);
        dirty = limited(task, quota, pass + sync);
        lost += lost_in(task, quota, pass + sync);
        now += pass + sync;
        passes += 1;
    }
}

/// Sending goes on to the end of a step.
fn stepped(seconds: f64, step: f64) -> f64 {
    if step > 0.0 {
        (seconds / step).ceil().max(1.0) * step
    } else {
        seconds
    }
}

/// Distinct pages that become dirty in `seconds` under the quota.
fn limited(task: &Task, quota: f64, seconds: f64) -> f64 {
    let most = quota * seconds;
    let guest = task.dirtying.as_ref().map_or(most, |dirtying| {
        dirtying
            .distinct(unslowed(dirtying, task.vmm.log, quota, seconds))
            .min(most)
    });
    guest + task.devices.pages_per_sec() * seconds
}

/// How long the guest, free, would take for what it does in `seconds` under the quota.
fn unslowed(dirtying: &Dirtying, log: Log, quota: f64, seconds: f64) -> f64 {
    // Until it is full.
    let fills = dirtying.takes(log.pages.0 as f64);
    let round = (log.pages.0 as f64 / quota).max(fills);
    // In which nobody empties it before it is full.
    let undisturbed = |seconds: f64| {
        let in_round = |round: f64| dirtying.unslowed(quota, round).min(fills);
        let rounds = (seconds / round).floor();
        if rounds < 1.0 {
            return in_round(seconds);
        }
        rounds * in_round(round) + in_round(seconds - rounds * round)
    };
    let every = log.every.as_secs_f64();
    if every >= f64::from(u32::MAX) {
        return undisturbed(seconds);
    }
    let of_phase = |phase: u32| {
        let first = every * (f64::from(phase) + 0.5) / f64::from(PHASES);
        if seconds <= first {
            return undisturbed(seconds);
        }
        let rounds = ((seconds - first) / every).floor();
        undisturbed(first) + rounds * undisturbed(every) + undisturbed(seconds - first - rounds * every)
    };
    (0..PHASES).map(of_phase).sum::<f64>() / f64::from(PHASES)
}

fn lost_in(task: &Task, quota: f64, seconds: f64) -> f64 {
    task.dirtying
        .as_ref()
        .map_or(0.0, |dirtying| (dirtying.rate() - quota).max(0.0) * seconds)
}
