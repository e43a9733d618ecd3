//! What is expected: QEMU's rule, pass by pass, for a guest that uses its quota up and is solved again after each sync.

use super::{
    Task,
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

/// How much of what is written hits what is still to be sent, as a part of what chance would do: a guest that writes one page
/// after the other does between none and twice that.
const OVERLAP: f64 = 0.5;

/// More are not looked at: the bound on the total has long been passed.
const MOST_PASSES: u32 = 10_000;

pub(super) fn forecast(task: &Task, held: &Held, start: Start) -> Forecast {
    let vmm = &task.vmm;
    let memory = (task.memory.0 as f64).max(1.0);
    let left = (task.left.0 as f64).min(memory);
    let bandwidth = task.bandwidth.pages_per_sec();
    let (step, sync) = (vmm.shortest_step.as_secs_f64(), vmm.sync.expected.as_secs_f64());
    let (mut quota, mut threshold) = (held.quota, held.worst.threshold);
    let setup = vmm.setup.as_secs_f64();
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
            .map_or(memory, |dirtying| dirtying.distinct(begin)),
    };
    let rest = stepped((unsent - threshold).max(0.0) / bandwidth, step);
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
            let blackout = after_stop / bandwidth + vmm.fixed.expected.as_secs_f64();
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
                setup: std::time::Duration::ZERO,
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
    let guest = task
        .dirtying
        .as_ref()
        .map_or(most, |dirtying| dirtying.distinct(seconds).min(most));
    guest + task.devices.pages_per_sec() * seconds
}

fn lost_in(task: &Task, quota: f64, seconds: f64) -> f64 {
    task.dirtying
        .as_ref()
        .map_or(0.0, |dirtying| (dirtying.rate() - quota).max(0.0) * seconds)
}
