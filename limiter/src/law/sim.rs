//! A simulated guest, its rings, and the threads of a periodic limiter around them, in virtual time: minutes of a
//! limiter's life in microseconds, without a wall clock.
//!
//! A vCPU fills its ring at a constant rate, exits when it is full, has it reaped and sleeps off its throttle. Reaping,
//! kicking and adjusting take no time.

use std::time::Duration;

use super::{
    LimiterKind,
    periodic::{PeriodicLaw, Policy, Reading, RingFullReap, SleepEnd, Threads},
};
use crate::{
    rate::Harvest,
    units::{MibPerSec, PAGES_PER_MIB, Pages, Quota},
};

/// Entries of a ring that are never used: what the kernel reserves without Intel PML.
const RESERVED_ENTRIES: u64 = 64;

/// The reaper's period, in QEMU whatever the limiter's is.
const REAPER_PERIOD: Nanos = 1_000_000_000;

/// How much later than the measuring thread the adjusting one runs, where there are two: about a third of a period.
const ADJUSTER_LAG_PERMILLE: u64 = 310;

type Nanos = u64;

/// A machine under a periodic law.
pub(super) struct Machine {
    now: Nanos,
    ring_entries: u64,
    period: Nanos,
    law: Box<dyn PeriodicLaw>,
    policy: Policy,
    vcpus: Vec<Vcpu>,
    measurer: Measurer,
    /// When the adjusting thread runs next; only with [`Threads::Split`].
    adjusts_at: Nanos,
    reaps_at: Nanos,
    /// What the last measurement said, of each vCPU.
    readings: Vec<Harvest>,
}

struct Vcpu {
    quota: Option<Quota>,
    nanos_per_page: Nanos,
    state: State,
    /// Entries in the ring when it last ran or was reaped.
    in_ring: u64,
    /// Pages reaped since the measurement began.
    reaped: u64,
    /// Pages dirtied in all: what the guest's own counter would say.
    dirtied: u64,
}

enum State {
    /// In the guest since then; what it dirtied since is not counted yet.
    Running {
        since: Nanos,
    },
    Sleeping {
        until: Nanos,
    },
}

/// What the measuring thread is doing.
enum Measurer {
    /// The period is on.
    Waits { until: Nanos },
    /// The period is over: vCPUs from this one on have not answered the kick yet.
    Kicks { next: usize, until: Nanos },
}

/// Rates over a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// What the limiter read at the end of it.
    pub(super) read: f64,
    /// The mean of what the guest dirtied.
    pub(super) truth: f64,
}

impl Machine {
    pub(super) fn new(kind: LimiterKind, ring_entries: u32, period: Duration, unlimited: &[f64]) -> Self {
        let period = nanos(period);
        Self {
            now: 0,
            ring_entries: ring_entries.into(),
            period,
            law: kind.periodic_law(ring_entries).expect("a law that works in periods"),
            policy: kind.descriptor().policy,
            vcpus: unlimited.iter().map(|&rate| Vcpu::new(MibPerSec(rate))).collect(),
            measurer: Measurer::Waits { until: period },
            adjusts_at: period + period * ADJUSTER_LAG_PERMILLE / 1000,
            reaps_at: REAPER_PERIOD * 2 / 3,
            readings: vec![Harvest::default(); unlimited.len()],
        }
    }

    pub(super) fn set_quota(&mut self, vcpu: usize, mib_per_sec: Option<f64>) {
        self.vcpus[vcpu].quota = mib_per_sec.map(|rate| Quota::new(rate).expect("a quota"));
    }

    /// Runs on for `span`; the rates of each vCPU in it.
    pub(super) fn run(&mut self, span: Duration) -> Vec<Rates> {
        let began = self.now;
        let before: Vec<u64> = self.vcpus.iter().map(|vcpu| vcpu.dirtied_by(began)).collect();
        let until = began + nanos(span);
        loop {
            let next = self.next_event();
            if next > until {
                break;
            }
            self.now = next;
            self.step();
        }
        self.now = until;
        let seconds = span.as_secs_f64();
        let rates = self.vcpus.iter().zip(&self.readings).zip(before);
        rates
            .map(|((vcpu, reading), before)| Rates {
                read: reading.whole().0 as f64,
                truth: Pages(vcpu.dirtied_by(until) - before).to_mib() / seconds,
            })
            .collect()
    }

    fn usable_entries(&self) -> u64 {
        self.ring_entries - RESERVED_ENTRIES
    }

    fn next_event(&self) -> Nanos {
        let measurer = match self.measurer {
            Measurer::Waits { until } | Measurer::Kicks { until, .. } => until,
        };
        let vcpus = self.vcpus.iter().map(|vcpu| vcpu.next_event(self.usable_entries()));
        vcpus
            .chain([measurer, self.adjusts_at, self.reaps_at])
            .min()
            .expect("there is always a period that ends")
    }

    /// Everything that is due now.
    fn step(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            if self.vcpus[vcpu].next_event(self.usable_entries()) <= self.now {
                self.vcpu_event(vcpu);
            }
        }
        match self.measurer {
            Measurer::Waits { until } if until <= self.now => self.kick_from(0),
            Measurer::Kicks { next, until } if until <= self.now => self.kick_from(next),
            _ => {}
        }
        if self.adjusts_at <= self.now {
            self.adjusts_at += self.period;
            if self.policy.threads == Threads::Split {
                self.adjust();
            }
        }
        if self.reaps_at <= self.now {
            self.reaps_at += REAPER_PERIOD;
            if self.policy.reaper_beside {
                self.reap_all();
            }
        }
    }

    fn vcpu_event(&mut self, index: usize) {
        if let State::Sleeping { .. } = self.vcpus[index].state {
            self.vcpus[index].state = State::Running { since: self.now };
            return;
        }
        // The ring is full.
        match self.policy.ring_full_reap {
            RingFullReap::AllRings => self.reap_all(),
            RingFullReap::OwnRing => self.vcpus[index].reap(self.now),
        }
        let throttle = self.law.throttle(index).0 * 1000;
        let vcpu = &mut self.vcpus[index];
        if vcpu.quota.is_some() && throttle > 0 {
            vcpu.state = State::Sleeping {
                until: self.now + throttle,
            };
        }
    }

    fn reap_all(&mut self) {
        for vcpu in &mut self.vcpus {
            vcpu.reap(self.now);
        }
    }

    /// The sync that ends a period: every vCPU from `first` on is kicked, one after the other, and waited for.
    fn kick_from(&mut self, first: usize) {
        for index in first..self.vcpus.len() {
            let vcpu = &mut self.vcpus[index];
            if let State::Sleeping { until } = vcpu.state {
                match self.policy.sleep_end {
                    SleepEnd::KickEndsIt => vcpu.state = State::Running { since: self.now },
                    SleepEnd::RunsOut => {
                        self.measurer = Measurer::Kicks { next: index + 1, until };
                        return;
                    }
                }
            }
        }
        self.reap_all();
        for (vcpu, reading) in self.vcpus.iter_mut().zip(&mut self.readings) {
            *reading = Harvest {
                pages: Pages(std::mem::take(&mut vcpu.reaped)),
                // Taken before the sync, however long that took.
                over: Duration::from_nanos(self.period),
            };
        }
        if self.policy.threads == Threads::Merged {
            self.adjust();
        }
        self.measurer = Measurer::Waits {
            until: self.now + self.period,
        };
    }

    fn adjust(&mut self) {
        let readings: Vec<Reading> = (0..self.vcpus.len())
            .map(|vcpu| Reading {
                vcpu,
                quota: self.vcpus[vcpu].quota,
                harvest: self.readings[vcpu],
            })
            .collect();
        self.law.adjust(&readings);
    }
}

impl Vcpu {
    fn new(unlimited: MibPerSec) -> Self {
        Self {
            quota: None,
            nanos_per_page: (1e9 / (unlimited.0 * PAGES_PER_MIB as f64)).round() as Nanos,
            state: State::Running { since: 0 },
            in_ring: 0,
            reaped: 0,
            dirtied: 0,
        }
    }

    /// When it wakes, or when its ring is full.
    fn next_event(&self, usable_entries: u64) -> Nanos {
        match self.state {
            State::Running { since } => since + (usable_entries - self.in_ring) * self.nanos_per_page,
            State::Sleeping { until } => until,
        }
    }

    /// Counts what it dirtied up to `now`. What is left of a page is dirtied once more.
    fn settle(&mut self, now: Nanos) {
        if let State::Running { since } = &mut self.state {
            let pages = (now - *since) / self.nanos_per_page;
            *since += pages * self.nanos_per_page;
            self.in_ring += pages;
            self.dirtied += pages;
        }
    }

    fn reap(&mut self, now: Nanos) {
        self.settle(now);
        self.reaped += std::mem::take(&mut self.in_ring);
    }

    fn dirtied_by(&self, now: Nanos) -> u64 {
        match self.state {
            State::Running { since } => self.dirtied + (now - since) / self.nanos_per_page,
            State::Sleeping { .. } => self.dirtied,
        }
    }
}

fn nanos(span: Duration) -> Nanos {
    Nanos::try_from(span.as_nanos()).expect("a simulation is shorter than 584 years")
}

#[cfg(test)]
mod tests;
