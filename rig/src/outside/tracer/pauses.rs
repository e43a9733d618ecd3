//! Pauses that are over, and pages that are charged.

use std::time::Duration;

use dirtyrig_limiter::{law::accounts::Accounts, units::Pages};
use dirtyrig_probes::Quota;

use super::{
    super::{
        error::OutsideError,
        held::{Hold, Pause, Vcpu},
    },
    Tracer, pages, system,
};

impl Tracer {
    /// Notes when a vCPU is to be looked after next, after every change of how it is held.
    pub(super) fn schedule(&mut self, vcpu: usize) {
        let due = self.vcpus.get(&vcpu).and_then(|held| held.hold.due());
        self.agenda.note(vcpu, due);
    }

    /// Ends the pauses that are over, and charges those that have run for long: those that are due, whatever others there are.
    pub(super) fn act_on_what_is_due(&mut self) -> Result<(), OutsideError> {
        let now = self.clock.now();
        while let Some(vcpu) = self.agenda.take(now) {
            self.look_after(now, vcpu)?;
            self.schedule(vcpu);
        }
        Ok(())
    }

    fn look_after(&mut self, now: Duration, vcpu: usize) -> Result<(), OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        match &mut held.hold {
            Hold::Paused(_, pause) if pause.due <= now => {
                // Others may have drawn on the VM's quota meanwhile.
                let more = self.accounts.pause(now, vcpu);
                if more.is_zero() {
                    return self.end_pause(now, vcpu);
                }
                pause.due = now + more;
            }
            Hold::Running(_, interim) if interim.due() <= now => {
                *interim = interim.next(now);
                charge(&self.quota, &mut self.accounts, now, vcpu, held);
            }
            _ => {}
        }
        Ok(())
    }

    fn end_pause(&mut self, now: Duration, vcpu: usize) -> Result<(), OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        let grant = self.accounts.grant(now, vcpu);
        self.quota.refill(held.slot, pages(grant));
        match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Paused(tracee, Pause { since, due, deliver }) => {
                tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
                held.hold = Hold::Running(tracee, self.accounts.interim(now));
                let asked = due.saturating_sub(since);
                self.board.lock().resume(vcpu, self.clock.now(), asked);
            }
            other => held.hold = other,
        }
        Ok(())
    }

    pub(super) fn charge(&mut self, now: Duration, vcpu: usize) {
        if let Some(held) = self.vcpus.get_mut(&vcpu) {
            charge(&self.quota, &mut self.accounts, now, vcpu, held);
        }
    }
}

/// Charges a vCPU for what the eBPF program has counted since it was last charged.
fn charge(quota: &Quota, accounts: &mut Accounts, now: Duration, vcpu: usize, held: &mut Vcpu) {
    let drawn = quota.drawn(held.slot);
    let pages = Pages(drawn.saturating_sub(held.charged));
    held.charged = drawn;
    accounts.charge(now, vcpu, pages);
}
