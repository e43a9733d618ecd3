//! Ballast: most of the ring is kept full, so that a large ring acts as one that is as small as the grant.
//!
//! Entries are harvested, and so counted, but held back from reset. Their pages stay writable without being logged, so a
//! VMM must count them as dirty until the end. A guest whose working set is smaller than the ballast is not slowed at
//! all. In return the vCPU meets a ring-full exit after as many new pages as were left free, without privilege, timer or
//! second thread. Until it has dirtied as many pages as are to be held, a deadline stands in for the missing ballast.

use std::{sync::Arc, time::Duration};

use super::{
    account::Account,
    alarm::Alarm,
    deadline,
    enforcement::{Enforcement, IN_FLIGHT, Pause},
};
use crate::{Error, exit::Exit, law::pace::Pace, shared::Shared, units::Pages};

/// The kernel's reserve: 64 entries, and 512 more where Intel PML is in use.
const LARGEST_RESERVE: u64 = 64 + 512;

/// Fewer free entries than this make the vCPU do little but exit.
const SMALLEST_WINDOW: u64 = 32;

/// More free entries than this make a release that takes long: on the way into the guest as many pages are write-protected
/// at once as the vCPU may dirty next, at 50 ns each. A vCPU that has more to spend exits once more.
const LARGEST_WINDOW: u64 = 4096;

/// Charges one vCPU at ring-full exits that come after as many pages as it was granted.
pub(crate) struct Ballast {
    shared: Arc<Shared>,
    vcpu: usize,
    account: Account,
    alarm: Alarm,
    pace: Pace,
    entered: Duration,
    /// At how many outstanding entries the ring is full. Assumed low, and learnt from the first ring-full exit.
    soft_limit: u64,
}

impl Ballast {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize, ring_entries: u32) -> Self {
        let account = Account::new(Arc::clone(&shared), vcpu);
        let soft_limit = u64::from(ring_entries).saturating_sub(LARGEST_RESERVE);
        let (now, alarm) = (shared.clock.now(), Alarm::new(shared.signal));
        Self {
            shared,
            vcpu,
            account,
            alarm,
            pace: Pace::new(now),
            entered: now,
            soft_limit,
        }
    }

    fn settle(&mut self, now: Duration) -> Result<Pages, Error> {
        let (rings, vcpu) = (&self.shared.rings, self.vcpu);
        self.account.settle(now, || {
            rings.harvest(vcpu);
            Ok(())
        })
    }
}

impl Enforcement for Ballast {
    fn before_entry(&mut self, now: Duration) -> Result<Pause, Error> {
        self.settle(now)?;
        let asked = self.account.pause(now);
        if !asked.is_zero() {
            self.alarm.clear()?;
            return Ok(Pause::to_its_end(asked));
        }
        self.entered = now;
        let Some(grant) = self.account.grant(now) else {
            self.shared.rings.set_hold(self.vcpu, IN_FLIGHT)?;
            self.alarm.clear()?;
            return Ok(Pause::NONE);
        };
        let wanted = self
            .soft_limit
            .saturating_sub(grant.0.clamp(SMALLEST_WINDOW, LARGEST_WINDOW))
            .max(IN_FLIGHT);
        let held = self.shared.rings.set_hold(self.vcpu, wanted)?;
        if held < wanted {
            self.alarm.set(
                self.pace
                    .slice(grant, deadline::SHORTEST_SLICE, deadline::LONGEST_SLICE),
            )?;
        } else {
            self.alarm.clear()?;
        }
        Ok(Pause::NONE)
    }

    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<(), Error> {
        let outstanding = self.shared.rings.harvest(self.vcpu);
        if exit == Exit::RingFull {
            self.soft_limit = self.soft_limit.max(outstanding);
        }
        let pages = self.settle(left)?;
        self.pace.observe(left, pages, left.saturating_sub(self.entered));
        Ok(())
    }
}
