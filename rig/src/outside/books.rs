//! What is known of each vCPU, written by the controlling thread and read by anyone.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dirtyrig_limiter::units::{MibPerSec, Quota};
use dirtyrig_probes::identity::{NumberKind, VcpuId};

use super::{End, Fault};
use crate::model::Stall;

/// How many stalls are kept for whoever takes them.
const MAX_STALLS: usize = 1 << 20;

/// One vCPU. Counts and times only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VcpuBook {
    /// Its thread, or the last that it had.
    pub thread: u32,
    /// KVM's id of it, and the index that its VMM gives it.
    pub id: VcpuId,
    /// Whether it is plugged.
    pub plugged: bool,
    /// Its own limit.
    pub quota: Option<Quota>,
    /// Pages pushed to its ring over the last second.
    pub reading: MibPerSec,
    /// Pages pushed to its ring since the limiter attached.
    pub pages: u64,
    /// How often it was stopped because its grant was spent.
    pub stops: u64,
    /// Signals of others that were passed on to it.
    pub passed_on: u64,
    /// Pauses asked for.
    pub asked: Duration,
    /// Time that it was kept stopped.
    pub stopped: Duration,
    /// The last pause that was asked for.
    pub last_asked: Duration,
    /// Since when it has been kept stopped.
    pub(super) since: Option<Duration>,
    /// Where its pages are counted.
    pub(super) slot: u32,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// By number.
    pub(super) vcpus: BTreeMap<usize, VcpuBook>,
    /// What the numbers are.
    pub(super) kind: NumberKind,
    pub(super) vm_quota: Option<Quota>,
    stalls: Vec<Stall>,
    /// Why the limiter ended by itself.
    pub(super) end: Option<End>,
    /// What the user should know, until it is taken.
    pub(super) faults: Vec<Fault>,
}

/// The books, shared.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Books>);

impl Board {
    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        // Every change is complete before its lock goes: a panic elsewhere takes nothing from the books.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// The stalls since the last call.
    pub(super) fn take_stalls(&mut self) -> Vec<Stall> {
        std::mem::take(&mut self.stalls)
    }

    /// The vCPU is stopped from `now` on.
    pub(super) fn pause(&mut self, vcpu: usize, now: Duration, asked: Duration) {
        let book = self.vcpus.entry(vcpu).or_default();
        book.asked += asked;
        book.last_asked = asked;
        book.since.get_or_insert(now);
    }

    /// The vCPU runs on.
    pub(super) fn resume(&mut self, vcpu: usize, now: Duration, asked: Duration) {
        let book = self.vcpus.entry(vcpu).or_default();
        let Some(since) = book.since.take() else { return };
        let length = now.saturating_sub(since);
        book.stopped += length;
        if self.stalls.len() < MAX_STALLS {
            self.stalls.push(Stall {
                vcpu,
                at: since,
                length,
                asked,
                slept: length,
            });
        }
    }
}

impl VcpuBook {
    /// Itself at `now`, with the pause that goes on.
    pub(super) fn at(mut self, now: Duration) -> Self {
        self.stopped += self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self
    }
}
