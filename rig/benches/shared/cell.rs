//! Runs one cell to its end.

use std::time::Duration;

use anyhow::Context;
use dirtyrig_rig::{
    engine::{
        cell::{CellResult, Watch},
        interrupt::Interrupt,
        sink::Discard,
    },
    model::Sample,
    scenario::{End, Scenario, script::Event, settings::Settings},
    session::build_target,
    sweep::execute::run_on,
};

/// One cell, run to its end.
pub(crate) struct Cell {
    pub(crate) result: CellResult,
}

impl Cell {
    /// The longest pause of a vCPU that reached into the time between two instants, ms.
    pub(crate) fn longest_stall_ms(&self, vcpu: usize, from_s: f64, until_s: f64) -> f64 {
        let within = self.result.stalls.iter().filter(|stall| {
            let at_s = stall.at.as_secs_f64();
            stall.vcpu == vcpu && at_s <= until_s && at_s + stall.length.as_secs_f64() >= from_s
        });
        within.map(|stall| stall.length.as_secs_f64() * 1e3).fold(0.0, f64::max)
    }

    /// Whether a vCPU dirtied more than `quota_mib_s` before its limits were set. A quota above that limits nothing, and how far
    /// the guest stays below it is no error of the limiter's.
    pub(crate) fn reaches(&self, vcpu: u32, written: fn(&Sample) -> u64, quota_mib_s: f64) -> bool {
        self.rate(vcpu, written, -0.5, 0.0) > quota_mib_s
    }

    /// Mean rate of a count of pages of a vCPU between two times, MiB/s.
    pub(crate) fn rate(&self, vcpu: u32, count: fn(&Sample) -> u64, from_s: f64, until_s: f64) -> f64 {
        let own: Vec<&Sample> = self.result.samples.iter().filter(|row| row.vcpu == vcpu).collect();
        let first = own.iter().find(|row| row.t_s >= from_s);
        let last = own.iter().rfind(|row| row.t_s <= until_s);
        match (first, last) {
            (Some(first), Some(last)) if last.t_s > first.t_s => {
                (count(last) - count(first)) as f64 / 256.0 / (last.t_s - first.t_s)
            }
            _ => f64::NAN,
        }
    }
}

/// Runs cells one after the other, each with a seed of its own.
pub(crate) struct Runner {
    interrupt: Interrupt,
    seed: u64,
}

impl Runner {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: Interrupt::from_signals()?,
            seed: 0,
        })
    }

    /// Runs the cell that the TOML `settings` describe under `limiter`, sampled every 10 ms.
    pub(crate) fn run(&mut self, limiter: &str, settings: &str) -> anyhow::Result<Cell> {
        let text = format!("limiter = '{limiter}'\nwarm-up = '600ms'\nprobes = 'off'\n{settings}");
        let settings: Settings = toml::from_str(&text).with_context(|| format!("bad settings:\n{text}"))?;
        self.seed += 1;
        let scenario = Scenario {
            sample_every: Duration::from_millis(10),
            ..Scenario::new(&settings, self.seed, End::AtDuration)?
        };
        let target = build_target(&scenario.vm)?;
        let (result, _) = run_on(target, (0, 0), &scenario, &mut Discard, &mut Silent, &self.interrupt)?;
        Ok(Cell { result })
    }
}

struct Silent;

impl Watch for Silent {
    fn sampled(&mut self, _: &[Sample]) {}
    fn changed(&mut self, _: Event) {}
}
