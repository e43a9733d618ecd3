//! Runs cells and keeps what was measured.

use std::{collections::BTreeMap, time::Duration};

use dirtyrig_rig::{
    compare::{Judged, judged},
    machine::Facts,
};

use super::cell::{Cell, Runner};

/// The phases of a vCPU of a cell, or of all together; `period` is that of the law, where it has one.
pub(crate) fn phases(cell: &Cell, vcpu: Option<u32>, period: Option<Duration>) -> Vec<Judged> {
    let all = judged(&cell.result.samples, period);
    let own = all.into_iter().find(|(subject, _)| *subject == vcpu);
    own.map(|(_, phases)| phases).unwrap_or_default()
}

/// The run of the benchmark: its cells, and what came of them.
pub(crate) struct Bench {
    pub(crate) has_bpf: bool,
    pub(crate) facts: Facts,
    runner: Runner,
    /// By row and column of the table, a value a repetition.
    pub(crate) values: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    /// The same, how often the quota was above what the guest does unlimited: there is no value then.
    pub(crate) out_of_reach: BTreeMap<(&'static str, &'static str), usize>,
}

impl Bench {
    pub(crate) fn new(has_bpf: bool) -> anyhow::Result<Self> {
        Ok(Self {
            has_bpf,
            facts: Facts::gather(),
            runner: Runner::new()?,
            values: BTreeMap::new(),
            out_of_reach: BTreeMap::new(),
        })
    }

    /// The limiters that hold a quota on any ring, as far as they work here.
    pub(crate) fn budgets(&self) -> &'static [&'static str] {
        if self.has_bpf {
            &["budget", "budget-ebpf"]
        } else {
            &["budget"]
        }
    }

    /// Runs a cell, see [`Runner::run`].
    pub(crate) fn run(&mut self, limiter: &str, settings: &str) -> anyhow::Result<Cell> {
        self.runner.run(limiter, settings)
    }

    /// Keeps a value of one repetition.
    pub(crate) fn keep(&mut self, row: &'static str, column: &'static str, value: f64) {
        self.values.entry((row, column)).or_default().push(value);
    }

    /// Keeps a value of one repetition under a quota that the guest reaches, or that it does not.
    pub(crate) fn keep_if(&mut self, reached: bool, row: &'static str, column: &'static str, value: f64) {
        if reached {
            self.keep(row, column, value);
        } else {
            *self.out_of_reach.entry((row, column)).or_default() += 1;
        }
    }
}
