//! Deadline exits: a timer takes the vCPU out of the guest before it can have spent its grant, and it is charged with
//! exactly what it dirtied.
//!
//! The slice is the grant over the fastest pace seen of the vCPU, so that a fast writer exits often and a reader hardly
//! ever. It needs no second thread and no privilege, and doesn't depend on the ring's size; its price is the exits, and
//! the pages that the vCPU dirties between the deadline and the exit: they are charged, so that they only move the
//! next pause.

use std::{sync::Arc, time::Duration};

use super::{
    account::Account,
    alarm::Alarm,
    enforcement::{Enforcement, IN_FLIGHT, Pause},
};
use crate::{Error, exit::Exit, law::pace::Pace, rings::Whose, shared::Shared, units::Pages};

/// The shortest run between two deadlines: below it the vCPU does little but exit. It is what a fast guest overruns a small
/// grant by, and so the least pause of low quotas: 20 pages on a host that dirties 1,600 MiB/s. Only quotas below some 2 % of
/// the guest's speed come to it, and a vCPU under these mostly sleeps.
pub(super) const SHORTEST_SLICE: Duration = Duration::from_micros(50);

/// The longest run between two deadlines: how long a vCPU that was slow and turns fast goes unnoticed.
pub(super) const LONGEST_SLICE: Duration = Duration::from_millis(10);

/// How often entries are given back, if not too many are outstanding. A reset flushes the translations of all vCPUs, those
/// that only read as well: at each of several exits a burst it slows them by 2.6 %. What the guest writes again before it is
/// not logged again, by any ring.
const RESET_EVERY: Duration = Duration::from_millis(10);

/// Charges one vCPU at every exit and makes sure that there is one in time.
pub(crate) struct Deadline {
    shared: Arc<Shared>,
    vcpu: usize,
    /// Entries that are given back before [`RESET_EVERY`] has passed.
    most_outstanding: u64,
    was_reset: Duration,
    account: Account,
    alarm: Alarm,
    pace: Pace,
    entered: Duration,
    is_holding: bool,
}

impl Deadline {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize, ring_entries: u32) -> Self {
        let account = Account::new(Arc::clone(&shared), vcpu);
        let (now, alarm) = (shared.clock.now(), Alarm::new(shared.signal));
        Self {
            shared,
            vcpu,
            most_outstanding: u64::from(ring_entries / 4),
            was_reset: now,
            account,
            alarm,
            pace: Pace::new(now),
            entered: now,
            is_holding: false,
        }
    }

    /// Harvests, and resets now and then.
    fn reap(&mut self, exit: Exit, left: Duration) -> Result<(), Error> {
        let outstanding = self.shared.rings.harvest(self.vcpu);
        let is_due = left.saturating_sub(self.was_reset) >= RESET_EVERY;
        if is_due || outstanding >= self.most_outstanding || exit == Exit::RingFull {
            self.shared.rings.reap(Whose::One(self.vcpu))?;
            self.was_reset = left;
        }
        Ok(())
    }

    fn settle(&mut self, now: Duration) -> Result<Pages, Error> {
        let (rings, own) = (&self.shared.rings, Whose::One(self.vcpu));
        self.account.settle(now, || rings.reap(own).map(drop))
    }
}

impl Enforcement for Deadline {
    fn before_entry(&mut self, now: Duration) -> Result<Pause, Error> {
        if !std::mem::replace(&mut self.is_holding, true) {
            self.shared.rings.set_hold(self.vcpu, IN_FLIGHT)?;
        }
        self.settle(now)?;
        let asked = self.account.pause(now);
        if !asked.is_zero() {
            self.alarm.clear()?;
            return Ok(Pause::to_its_end(asked));
        }
        match self.account.grant(now) {
            Some(grant) => self.alarm.set(self.pace.slice(grant, SHORTEST_SLICE, LONGEST_SLICE))?,
            None => self.alarm.clear()?,
        }
        self.entered = now;
        Ok(Pause::NONE)
    }

    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<(), Error> {
        if exit == Exit::Other && !self.account.is_limited() {
            return Ok(());
        }
        self.reap(exit, left)?;
        let pages = self.settle(left)?;
        self.pace.observe(left, pages, left.saturating_sub(self.entered));
        Ok(())
    }
}
