//! What a vCPU has done, kept by its thread and read by anyone at any time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::exit::Exit;

/// How many stalls are kept for whoever takes them; more are counted as lost.
const MAX_STALLS: usize = 1 << 20;

/// What a vCPU has done so far. Counts and times only grow; times include what is going on at the moment of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VcpuStats {
    /// Exits from `KVM_RUN`, whatever the reason.
    pub exits: u64,
    /// Exits because the dirty ring was full.
    pub ring_full_exits: u64,
    /// Time in `KVM_RUN`.
    pub in_guest: Duration,
    /// Sleep asked for.
    pub asked: Duration,
    /// Sleep had.
    pub slept: Duration,
    /// Length of the sleep that was asked for last.
    pub last_asked: Duration,
    /// CPU time that its thread spent outside `KVM_RUN`: harvesting, resetting, limiting.
    pub outside_cpu: Duration,
    /// Stalls that nobody took in time.
    pub lost_stalls: u64,
}

/// One pause of a vCPU: from a ring-full exit, or one that throttled it, to its next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When the exit happened.
    pub at: Duration,
    /// Exit to next entry.
    pub length: Duration,
    /// The sleep that was asked for.
    pub asked: Duration,
    /// The sleep that was had.
    pub slept: Duration,
}

impl Stall {
    /// One that has just begun, at the exit at `at`.
    pub(crate) fn since(at: Duration) -> Self {
        Self {
            at,
            length: Duration::ZERO,
            asked: Duration::ZERO,
            slept: Duration::ZERO,
        }
    }

    /// The same, ended by an entry at `entered`.
    pub(crate) fn until(self, entered: Duration) -> Self {
        Self {
            length: entered.saturating_sub(self.at),
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Out,
    InGuest,
    Asleep,
}

#[derive(Debug, Default)]
struct Ledger {
    stats: VcpuStats,
    activity: Activity,
    since: Duration,
    stalls: Vec<Stall>,
}

impl Ledger {
    /// The counts at `now`, with the running activity included.
    fn at(&self, now: Duration) -> VcpuStats {
        let mut stats = self.stats;
        let running = now.saturating_sub(self.since);
        match self.activity {
            Activity::Out => {}
            Activity::InGuest => stats.in_guest += running,
            Activity::Asleep => stats.slept += running,
        }
        stats
    }

    fn turn(&mut self, now: Duration, activity: Activity) {
        self.stats = self.at(now);
        self.activity = activity;
        self.since = now;
    }
}

/// The books of one vCPU. Its thread writes them, two uncontended locks an exit.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Ledger>);

impl Books {
    /// What the vCPU has done up to `now`.
    pub(crate) fn at(&self, now: Duration) -> VcpuStats {
        self.lock().at(now)
    }

    /// The stalls since the last call.
    pub(crate) fn take_stalls(&self) -> Vec<Stall> {
        std::mem::take(&mut self.lock().stalls)
    }

    /// The vCPU enters the guest, out of `stall` if it was in one, after its thread spent `outside_cpu` of CPU time outside.
    pub(crate) fn enter(&self, now: Duration, stall: Option<Stall>, outside_cpu: Duration) {
        let mut ledger = self.lock();
        ledger.stats.outside_cpu += outside_cpu;
        ledger.turn(now, Activity::InGuest);
        if let Some(stall) = stall {
            if ledger.stalls.len() < MAX_STALLS {
                ledger.stalls.push(stall);
            } else {
                ledger.stats.lost_stalls += 1;
            }
        }
    }

    /// The vCPU has left the guest.
    pub(crate) fn leave(&self, now: Duration, exit: Exit) {
        let mut ledger = self.lock();
        ledger.turn(now, Activity::Out);
        ledger.stats.exits += 1;
        if exit == Exit::RingFull {
            ledger.stats.ring_full_exits += 1;
        }
    }

    /// The vCPU goes to sleep for `asked`.
    pub(crate) fn fall_asleep(&self, now: Duration, asked: Duration) {
        let mut ledger = self.lock();
        ledger.turn(now, Activity::Asleep);
        ledger.stats.asked += asked;
        ledger.stats.last_asked = asked;
    }

    /// The vCPU has woken.
    pub(crate) fn wake_up(&self, now: Duration) {
        self.lock().turn(now, Activity::Out);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // Every update is complete before its lock goes: a panic elsewhere takes nothing from the books.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
