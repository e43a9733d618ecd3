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
    /// When a pause is over, or a vCPU that runs is to be charged.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.vcpus
            .values()
            .filter_map(|held| match held.hold {
                Hold::Paused(_, pause) => Some(pause.due),
                Hold::Running(_, interim) => Some(interim.due()),
                _ => None,
            })
            .min()
    }

    /// Continues those whose pause is over, unless others have drawn on the VM's quota meanwhile.
    pub(super) fn end_pauses(&mut self) -> Result<(), OutsideError> {
        let now = self.clock.now();
        for (&vcpu, held) in &mut self.vcpus {
            let Hold::Paused(_, pause) = &mut held.hold else {
                continue;
            };
            if pause.due > now {
                continue;
            }
            let more = self.accounts.pause(now, vcpu);
            if !more.is_zero() {
                pause.due = now + more;
                continue;
            }
            let Pause { since, due, deliver } = *pause;
            let grant = self.accounts.grant(now, vcpu);
            self.quota.refill(held.slot, pages(grant));
            if let Hold::Paused(tracee, _) = std::mem::replace(&mut held.hold, Hold::Free) {
                tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
                held.hold = Hold::Running(tracee, self.accounts.interim(now));
            }
            self.board
                .lock()
                .resume(vcpu, self.clock.now(), due.saturating_sub(since));
        }
        Ok(())
    }

    /// Charges those that have run for long.
    pub(super) fn charge_running(&mut self) {
        let now = self.clock.now();
        for (&vcpu, held) in &mut self.vcpus {
            if let Hold::Running(_, interim) = &mut held.hold
                && interim.due() <= now
            {
                *interim = interim.next(now);
                charge(&self.quota, &mut self.accounts, now, vcpu, held);
            }
        }
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
