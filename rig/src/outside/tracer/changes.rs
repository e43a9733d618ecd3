//! What the kernel tells of the tracees: a stop on the signal of a spent grant, one on a signal of the VMM's, the end.

use std::time::Duration;

use super::{
    super::{
        End,
        error::OutsideError,
        held::{Hold, Pause},
        signal::StopSignal,
        tracee::{Change, Tracee, next_change},
    },
    Tracer, pages, system,
};

impl Tracer {
    pub(super) fn take_changes(&mut self) -> Result<(), OutsideError> {
        while let Some((thread, change)) = next_change().map_err(system("ask what the VM's threads do"))? {
            if change == Change::Exec {
                // Its id may be another now; the kernel detaches it when this thread ends.
                self.end = Some(End::Gone);
            } else if let Some(&vcpu) = self.by_thread.get(&thread) {
                self.changed(vcpu, change)?;
                self.schedule(vcpu);
            }
        }
        Ok(())
    }

    pub(super) fn changed(&mut self, vcpu: usize, change: Change) -> Result<(), OutsideError> {
        if change == Change::Gone {
            return self.forget(vcpu);
        }
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        let StopSignal { number, is_kick } = held.signal;
        let (tracee, is_leaving) = match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Free => return Ok(()),
            Hold::Leaving(tracee) => (tracee, true),
            Hold::Running(tracee, _) | Hold::Paused(tracee, _) | Hold::Listening(tracee) => (tracee, false),
        };
        let (is_ours, deliver) = match change {
            Change::Signal(signal) if signal == number && tracee.is_from_kernel().unwrap_or(false) => {
                (true, if is_kick { signal } else { 0 })
            }
            Change::Signal(signal) => (false, signal),
            _ => (true, 0),
        };
        if is_leaving {
            self.quota.refill(held.slot, i64::MAX);
            return tracee.detach(deliver).map_err(system("let a vCPU thread go"));
        }
        if change == Change::GroupStop {
            tracee.listen().map_err(system("leave a vCPU thread stopped"))?;
            held.hold = Hold::Listening(tracee);
            return Ok(());
        }
        if !is_ours {
            // A signal of the VMM's own is never delayed. If the grant is spent, the next page stops it again.
            tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
            held.hold = Hold::Running(tracee, self.accounts.interim(self.clock.now()));
            if let Some(book) = self.board.lock().vcpus.get_mut(&vcpu) {
                book.passed_on += 1;
            }
            return Ok(());
        }
        self.stopped(vcpu, tracee, deliver)
    }

    /// A vCPU stopped because its grant is spent, or its process goes on: charges it, and lets it run or pause.
    pub(super) fn stopped(&mut self, vcpu: usize, tracee: Tracee, deliver: i32) -> Result<(), OutsideError> {
        let now = self.clock.now();
        self.charge(now, vcpu);
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        let is_spent = self.quota.left(held.slot) <= 0;
        let asked = if is_spent {
            self.accounts.pause(now, vcpu)
        } else {
            Duration::ZERO
        };
        let mut board = self.board.lock();
        if let Some(book) = board.vcpus.get_mut(&vcpu) {
            book.stops += u64::from(is_spent);
        }
        if asked.is_zero() {
            drop(board);
            if is_spent {
                let grant = self.accounts.grant(now, vcpu);
                self.quota.refill(held.slot, pages(grant));
            }
            tracee.resume(deliver).map_err(system("continue a vCPU thread"))?;
            held.hold = Hold::Running(tracee, self.accounts.interim(now));
        } else {
            board.pause(vcpu, now, asked);
            let pause = Pause {
                since: now,
                due: now + asked,
                deliver,
            };
            held.hold = Hold::Paused(tracee, pause);
        }
        Ok(())
    }
}
