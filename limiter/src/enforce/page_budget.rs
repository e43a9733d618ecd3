//! Page-exact exits: something in the kernel counts the vCPU's pages as they are pushed and stops it on the very one
//! that spends its grant: a dirty quota on a stock kernel.
//!
//! The counter is an eBPF program on `kvm_dirty_ring_push` that signals the vCPU's thread; this crate only knows its
//! [`PageCounter`].
//!
//! A vCPU that takes long over its grant is charged on its way, by a timer: see [`interim`](crate::law::interim).
//!
//! The signal takes the vCPU out before the write that faulted has been made, hence the entry that is
//! [`IN_FLIGHT`].

use std::{sync::Arc, time::Duration};

use super::{
    account::Account,
    alarm::Alarm,
    enforcement::{Enforcement, IN_FLIGHT, Pause},
};
use crate::{Error, KickSignal, exit::Exit, law::interim::Interim, rings::Whose, shared::Shared, units::Pages};

/// Counts the pages that one vCPU dirties, in the kernel, and signals its thread on the page that ends a budget.
pub trait PageCounter: Send {
    /// Called once, on the vCPU's thread, before the first budget: pages dirtied by this thread are the ones to count, and
    /// `signal` is what to send to it.
    ///
    /// # Errors
    /// Whatever keeps it from counting.
    fn bind_to_this_thread(&mut self, signal: KickSignal) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The next signal comes on the page that makes it this many from now; `None` for never.
    fn set_budget(&mut self, pages: Option<Pages>);
}

/// Grants one vCPU pages and is called when they are spent.
pub(crate) struct PageBudget {
    shared: Arc<Shared>,
    vcpu: usize,
    account: Account,
    alarm: Alarm,
    /// The next charge of the run that goes on.
    interim: Option<Interim>,
    /// What is left of its grant; `None` while none limits it, and after one was spent.
    left: Option<Pages>,
    /// Whether the ring was full at the last exit.
    was_full: bool,
    counter: Box<dyn PageCounter>,
    is_bound: bool,
}

impl PageBudget {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize, counter: Box<dyn PageCounter>) -> Self {
        let account = Account::new(Arc::clone(&shared), vcpu);
        let alarm = Alarm::new(shared.signal);
        Self {
            shared,
            vcpu,
            account,
            alarm,
            interim: None,
            left: None,
            was_full: false,
            counter,
            is_bound: false,
        }
    }
}

impl Enforcement for PageBudget {
    fn before_entry(&mut self, now: Duration) -> Result<Pause, Error> {
        if !self.is_bound {
            self.counter
                .bind_to_this_thread(self.shared.signal)
                .map_err(|source| Error::PageCounter { source })?;
            self.shared.rings.set_hold(self.vcpu, IN_FLIGHT)?;
            self.is_bound = true;
        }
        let (rings, own) = (&self.shared.rings, Whose::One(self.vcpu));
        let pages = self.account.settle(now, || rings.reap(own).map(drop))?;
        let asked = self.account.pause(now);
        if !asked.is_zero() {
            self.left = None;
            self.alarm.clear()?;
            return Ok(Pause::to_its_end(asked));
        }
        // A run lasts until its grant is spent: were it granted more on its way, it would hardly ever end.
        let left = self
            .left
            .filter(|&left| left > pages)
            .map(|left| Pages(left.0 - pages.0));
        self.interim = match (self.interim, left) {
            (Some(interim), Some(_)) if !self.was_full => Some(interim.next(now)),
            // A full ring was charged as well, and is no sign of a vCPU that hardly dirties.
            _ => self.account.interim(now),
        };
        let grant = self.account.grant(now);
        self.left = grant.map(|grant| left.map_or(grant, |left| left.min(grant)));
        self.counter.set_budget(self.left);
        match (self.left, self.interim) {
            (Some(_), Some(interim)) => self.alarm.set(interim.due().saturating_sub(now))?,
            _ => self.alarm.clear()?,
        }
        Ok(Pause::NONE)
    }

    fn after_exit(&mut self, exit: Exit, _left: Duration) -> Result<(), Error> {
        self.was_full = exit == Exit::RingFull;
        if self.was_full || self.account.is_limited() {
            self.shared.rings.reap(Whose::One(self.vcpu))?;
        }
        Ok(())
    }
}
