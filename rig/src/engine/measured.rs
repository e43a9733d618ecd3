//! Knows when a cell has settled and been measured.

use std::collections::BTreeMap;

use crate::{
    analysis::{CellFacts, Settling, State, logged_rate},
    model::Sample,
    scenario::rules::SWINGING,
};

/// Follows every vCPU that counts: the limited ones, or all where none is limited.
pub(super) struct Measured<'a> {
    facts: &'a CellFacts,
    vcpus: BTreeMap<u32, Follower>,
}

struct Follower {
    /// Its own quota, and that of all together.
    limits: (Option<f64>, Option<f64>),
    settling: Settling,
    /// Length of a swinging part that is enough.
    enough_s: f64,
    last_s: f64,
    /// When the last row was taken, and the pages logged by then.
    logged: Option<(f64, u64)>,
    /// Whether it can be expected to do anything: unplugged vCPUs never settle.
    awake: bool,
}

impl<'a> Measured<'a> {
    pub(super) fn new(facts: &'a CellFacts) -> Self {
        Self {
            facts,
            vcpus: BTreeMap::new(),
        }
    }

    /// Takes in the row of one vCPU; `plugged` says whether it runs.
    pub(super) fn push(&mut self, row: &Sample, plugged: bool) {
        if row.t_s <= 0.0 {
            return;
        }
        let facts = self.facts;
        let limits = (row.quota_mib_s, row.vm_quota_mib_s);
        let follower = self
            .vcpus
            .entry(row.vcpu)
            .or_insert_with(|| Follower::new(facts, limits, 0.0));
        if follower.limits != limits {
            *follower = Follower::new(facts, limits, follower.last_s);
        }
        let rate = row.guest_mib_s.or_else(|| logged_rate(follower.logged, row));
        follower.logged = row.harvested_pages.map(|pages| (row.t_s, pages));
        if let Some(rate) = rate {
            follower.settling.push(row.t_s, rate, facts.law.throttle_s(row));
        }
        follower.last_s = row.t_s;
        follower.awake = plugged;
    }

    /// Whether every vCPU that counts has been steady for long enough.
    pub(super) fn is_done(&self) -> bool {
        let any_limited = self.vcpus.values().any(Follower::is_limited);
        let mut counting = self
            .vcpus
            .values()
            .filter(|follower| follower.awake && (follower.is_limited() || !any_limited))
            .peekable();
        counting.peek().is_some() && counting.all(Follower::is_done)
    }
}

impl Follower {
    fn new(facts: &CellFacts, limits: (Option<f64>, Option<f64>), start_s: f64) -> Self {
        let rules = facts.rules(limits.0.into_iter().chain(limits.1).reduce(f64::min));
        Self {
            limits,
            enough_s: SWINGING * rules.window_s * rules.min_values as f64,
            settling: Settling::new(rules, start_s),
            last_s: start_s,
            logged: None,
            awake: true,
        }
    }

    fn is_limited(&self) -> bool {
        self.limits.0.or(self.limits.1).is_some()
    }

    fn is_done(&self) -> bool {
        match self.settling.state() {
            State::TooShort | State::Moving(_) => false,
            State::Settled { .. } => true,
            State::Oscillating { since_s } => self.last_s - since_s >= self.enough_s,
        }
    }
}
