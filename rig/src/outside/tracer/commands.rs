//! What users ask for: limits set, changed and cancelled, all or none.

use std::time::Duration;

use dirtyrig_limiter::{law::depth::Depth, limit::Which, units::Quota as Rate};

use super::{
    super::{error::OutsideError, held::Hold, limits::Limits},
    Command, Tracer, pages,
};

impl Tracer {
    pub(super) fn obey(&mut self, command: Command) {
        let (outcome, reply) = match command {
            Command::Set(which, quota, reply) => (self.set(which, quota), reply),
            Command::SetVm(quota, reply) => {
                let mut limits = self.limits.clone();
                limits.vm = quota;
                (self.change(limits), reply)
            }
            Command::SetBurst(burst, reply) => {
                self.accounts.set_depth(Depth {
                    burst,
                    ..self.accounts.depth()
                });
                (self.change(self.limits.clone()), reply)
            }
        };
        // It fails if nobody waits any more.
        let _ = reply.send(outcome);
    }

    pub(super) fn set(&mut self, which: Which, quota: Option<Rate>) -> Result<(), OutsideError> {
        if let Which::One(vcpu) = which
            && !self.slots.contains_key(&vcpu)
        {
            return Err(OutsideError::UnknownVcpu {
                vcpu,
                known: self.slots.keys().copied().collect(),
                kind: self.numbers.kind(),
            });
        }
        if let Which::One(vcpu) = which
            && self.is_guessed(vcpu)
        {
            return Err(OutsideError::Guessed { vcpu });
        }
        let mut limits = self.limits.clone();
        limits.set(which, quota);
        self.change(limits)
    }

    /// Puts `limits` into force, all or, where a thread can't be held, none.
    pub(super) fn change(&mut self, limits: Limits) -> Result<(), OutsideError> {
        let vcpus: Vec<usize> = self.vcpus.keys().copied().collect();
        let mut seized = Vec::new();
        for &vcpu in &vcpus {
            if limits.holds(vcpu) {
                match self.hold(vcpu) {
                    Ok(true) => seized.push(vcpu),
                    Ok(false) => {}
                    Err(error) => {
                        for vcpu in seized {
                            self.free(vcpu)?;
                            self.schedule(vcpu);
                        }
                        return Err(error);
                    }
                }
            }
        }
        let now = self.clock.now();
        for &vcpu in &vcpus {
            self.charge(now, vcpu);
        }
        self.limits = limits;
        self.board.lock().vm_quota = self.limits.vm;
        for vcpu in vcpus {
            self.follow(now, vcpu)?;
            self.schedule(vcpu);
        }
        Ok(())
    }

    /// Brings a vCPU that was charged, and seized if it is to be held, under the limits in force.
    pub(super) fn follow(&mut self, now: Duration, vcpu: usize) -> Result<(), OutsideError> {
        let quota = self.limits.quota(vcpu);
        if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
            book.quota = quota;
        }
        self.accounts.follow(now, vcpu, quota, self.limits.vm);
        if !self.limits.holds(vcpu) {
            return self.free(vcpu);
        }
        let pause = self.accounts.pause(now, vcpu);
        let grant = self.accounts.grant(now, vcpu);
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        match &mut held.hold {
            Hold::Paused(_, paused) => paused.due = now + pause,
            Hold::Running(..) | Hold::Listening(_) | Hold::Leaving(_) | Hold::Free => {
                // One that owes stops at its next page.
                let left = if pause.is_zero() { pages(grant) } else { 0 };
                // What is drawn meanwhile is charged at the next stop.
                self.quota.refill(held.slot, left);
            }
        }
        Ok(())
    }
}
