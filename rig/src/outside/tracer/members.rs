//! vCPUs that come and go.

use std::{collections::BTreeSet, fs, time::Duration};

use super::{
    super::{
        Fault,
        error::OutsideError,
        held::{Hold, Vcpu},
        signal::StopSignal,
        threads,
    },
    Tracer,
};

impl Tracer {
    /// Looks for threads that are gone, and for those of vCPUs that are missing.
    pub(super) fn scan(&mut self) -> Result<(), OutsideError> {
        let lives = |thread: u32| fs::exists(format!("/proc/{}/task/{thread}", self.process)).unwrap_or(false);
        // Of those that it traces the kernel says so.
        let is_gone = |held: &Vcpu| matches!(held.hold, Hold::Free) && !lives(held.thread);
        let gone: Vec<usize> = self
            .vcpus
            .iter()
            .filter(|(_, held)| is_gone(held))
            .map(|(&vcpu, _)| vcpu)
            .collect();
        for vcpu in gone {
            self.forget(vcpu)?;
        }
        self.missing = threads::rings(self.process).into_keys().collect();
        self.missing.retain(|vcpu| !self.vcpus.contains_key(vcpu));
        if self.missing.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<u32> = self.vcpus.values().map(|held| held.thread).collect();
        for found in threads::find(self.process, &known) {
            if let Some(vcpu) = found.vcpu {
                self.adopt(vcpu, found.thread)?;
            }
        }
        Ok(())
    }

    /// Where as many unknown threads have spent time in a guest as vCPUs are missing, takes them for these in their order:
    /// VMMs start them so.
    pub(super) fn take_in_order(&mut self) -> Result<(), OutsideError> {
        let known: BTreeSet<u32> = self.vcpus.values().map(|held| held.thread).collect();
        let mut found: Vec<u32> = threads::find(self.process, &known)
            .iter()
            .map(|found| found.thread)
            .collect();
        if found.len() == self.missing.len() {
            found.sort_unstable();
            for (vcpu, thread) in self.missing.clone().into_iter().zip(found) {
                self.adopt(vcpu, thread)?;
            }
        }
        Ok(())
    }

    /// Gives a vCPU its slot and its book.
    pub(super) fn announce(&mut self, vcpu: usize) -> u32 {
        let next = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let slot = *self.slots.entry(vcpu).or_insert(next);
        self.board.lock().vcpus.entry(vcpu).or_default().slot = slot;
        slot
    }

    pub(super) fn adopt(&mut self, vcpu: usize, thread: u32) -> Result<(), OutsideError> {
        if self.vcpus.contains_key(&vcpu) {
            // The thread that had this number is about to be reported as gone; this one is found again after that.
            return Ok(());
        }
        let slot = self.announce(vcpu);
        self.quota.refill(slot, i64::MAX);
        let signal = StopSignal::NONE_SENT;
        self.quota.limit(self.process, thread, slot, signal.number)?;
        let held = Vcpu {
            thread,
            slot,
            signal,
            hold: Hold::Free,
            charged: self.quota.drawn(slot),
            overdrawn: 0,
        };
        self.vcpus.insert(vcpu, held);
        self.missing.remove(&vcpu);
        if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
            (book.thread, book.plugged) = (thread, true);
        }
        if self.limits.holds(vcpu)
            && let Err(error) = self.hold(vcpu)
        {
            self.board.lock().faults.push(Fault::NotHeld(error.to_string()));
            return Ok(());
        }
        self.follow(self.clock.now(), vcpu)
    }

    pub(super) fn forget(&mut self, vcpu: usize) -> Result<(), OutsideError> {
        let now = self.clock.now();
        self.charge(now, vcpu);
        self.accounts.leave(now, vcpu);
        if let Some(held) = self.vcpus.remove(&vcpu) {
            self.quota.release(held.thread)?;
        }
        let mut board = self.board.lock();
        board.resume(vcpu, now, Duration::ZERO);
        if let Some(book) = board.vcpus.get_mut(&vcpu) {
            book.plugged = false;
        }
        Ok(())
    }
}
