//! What no guest can exceed. Amounts are in pages, rates in pages per second, times in seconds.

use std::time::Duration;

use super::Task;

/// The limit begins this long before the first pass may end: a guest that is free then may dirty without bound between the
/// last sync and the stop.
const LEAD: f64 = 0.25;

/// When the limit begins. Between the two lies no gain: what the guest writes free it may write all over memory, and what it
/// writes before it was sent is dirty again as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    AtOnce,
    /// Shortly before the first pass may end.
    AfterFirstPass,
}

/// A quota, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worst {
    /// What becomes dirty in a second: the quota, and what devices write.
    rate: f64,
    burst: f64,
    bandwidth: f64,
    /// The VMM's downtime limit, in whole milliseconds, at least one.
    pub(super) downtime_limit: Duration,
    /// Below which it stops the guest.
    pub(super) threshold: f64,
    /// The longest blackout.
    pub(super) blackout: f64,
}

impl Worst {
    /// The promised blackout is kept with `quota` pages per second; `None` if no threshold keeps it, or if more becomes dirty
    /// than is sent.
    pub(super) fn of(task: &Task, quota: f64) -> Option<Self> {
        let vmm = &task.vmm;
        let bandwidth = task.bandwidth.pages_per_sec();
        let rate = quota + task.devices.pages_per_sec();
        if rate >= bandwidth {
            return None;
        }
        let burst = quota * task.burst.span.as_secs_f64() + task.burst.pages.0 as f64;
        // What is dirtied after the last look is sent after the stop as well.
        let unseen = (rate * vmm.stop.as_secs_f64() + burst) / bandwidth;
        let buffered = vmm.buffered.bound.0 as f64 / bandwidth;
        let beside = vmm.fixed.bound.as_secs_f64() + buffered + unseen;
        let limit = task.downtime.as_secs_f64() - beside;
        let downtime_limit = Duration::from_millis((limit * 1e3).floor() as u64);
        if downtime_limit.is_zero() {
            return None;
        }
        let limit = downtime_limit.as_secs_f64();
        Some(Self {
            rate,
            burst,
            bandwidth,
            downtime_limit,
            threshold: bandwidth * limit,
            blackout: limit + beside,
        })
    }

    /// How often the VMM syncs at most until no more than the threshold is left; `None` if that is not sure to come.
    pub(super) fn syncs(&self, task: &Task) -> Option<f64> {
        let dirtied_in_sync = self.rate * task.vmm.sync.bound.as_secs_f64();
        // Sent before it looks again: a step, or all that is left.
        let least_sent = (self.bandwidth * task.vmm.shortest_step.as_secs_f64()).min(self.threshold);
        let ratio = self.rate / self.bandwidth;
        // By this much every pass brings it down.
        let least_gain = least_sent * (1.0 - ratio) - dirtied_in_sync;
        if least_gain <= 0.0 {
            return None;
        }
        let above = (task.left.0 as f64 - self.threshold).max(0.0);
        let mut syncs = 1.0 + (self.burst / least_gain).ceil() + (above.min(least_sent) / least_gain).ceil();
        if above > least_sent {
            // Down to `least_sent`, each pass leaves `ratio` of what is above the fixed point.
            let fixed_point = dirtied_in_sync / (1.0 - ratio);
            let shrinks_to = (least_sent - fixed_point) / (above - fixed_point);
            syncs += if ratio > 0.0 {
                (shrinks_to.ln() / ratio.ln()).ceil()
            } else {
                1.0
            };
        }
        Some(syncs)
    }

    /// The longest total time.
    pub(super) fn total(&self, task: &Task, start: Start) -> Option<f64> {
        let vmm = &task.vmm;
        let memory = task.left.0 as f64;
        let (free_for, to_send, syncs) = match start {
            Start::AtOnce => (0.0, memory, self.syncs(task)?),
            // What was written free is dirty again, be it sent or not: all of memory may be, beside what is unsent.
            Start::AfterFirstPass => {
                let unsent = self.unsent_at_start().min(memory);
                (
                    (memory - unsent) / self.bandwidth,
                    memory + unsent,
                    1.0 + self.syncs(task)?,
                )
            }
        };
        let surplus = to_send + self.burst - self.threshold;
        let in_syncs = self.bandwidth * syncs * vmm.sync.bound.as_secs_f64();
        let limited = (surplus + in_syncs).max(0.0) / (self.bandwidth - self.rate);
        let last_look = vmm.longest_step + vmm.sync.bound + vmm.stop;
        Some(vmm.setup.bound.as_secs_f64() + free_for + limited + last_look.as_secs_f64() + self.blackout)
    }

    /// What is left of the first pass when the limit begins, if the guest is free in it.
    pub(super) fn unsent_at_start(&self) -> f64 {
        self.threshold + self.bandwidth * LEAD
    }
}
