//! Seizing a vCPU's thread and letting it go.

use super::{
    super::{
        error::OutsideError,
        held::{self, Hold},
    },
    Tracer, system,
};

impl Tracer {
    /// Seizes a vCPU that is free; tells whether it was.
    pub(super) fn hold(&mut self, vcpu: usize) -> Result<bool, OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(false);
        };
        match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Free => {}
            // Its next page stops it, as it would any other whose grant is spent.
            Hold::Leaving(tracee) => {
                held.hold = Hold::Running(tracee, self.accounts.interim(self.clock.now()));
                return Ok(false);
            }
            other => {
                held.hold = other;
                return Ok(false);
            }
        }
        held.signal = held::choose_signal(self.process, vcpu, held.thread)?;
        let Some(tracee) = held::seize(self.process, held.thread)? else {
            return Ok(false);
        };
        held.hold = Hold::Running(tracee, self.accounts.interim(self.clock.now()));
        self.quota
            .limit(self.process, held.thread, held.slot, held.signal.number)?;
        Ok(true)
    }

    /// Lets a vCPU run unlimited and, from its next page on, without a tracer: a thread must stop to be detached.
    pub(super) fn free(&mut self, vcpu: usize) -> Result<(), OutsideError> {
        let Some(held) = self.vcpus.get_mut(&vcpu) else {
            return Ok(());
        };
        let (next, left) = match std::mem::replace(&mut held.hold, Hold::Free) {
            Hold::Running(tracee, _) | Hold::Listening(tracee) | Hold::Leaving(tracee) => (Hold::Leaving(tracee), 0),
            Hold::Paused(tracee, pause) => {
                self.quota.refill(held.slot, i64::MAX);
                tracee.detach(pause.deliver).map_err(system("let a vCPU thread go"))?;
                let now = self.clock.now();
                self.board
                    .lock()
                    .resume(vcpu, now, pause.due.saturating_sub(pause.since));
                (Hold::Free, i64::MAX)
            }
            Hold::Free => (Hold::Free, i64::MAX),
        };
        self.quota.refill(held.slot, left);
        held.hold = next;
        Ok(())
    }

    /// The end: every vCPU goes free. Those that run are detached by the kernel when this thread ends, as they run.
    pub(super) fn let_go(&mut self) {
        let vcpus: Vec<usize> = self.vcpus.keys().copied().collect();
        for vcpu in vcpus {
            // What fails here is done by the kernel too.
            let _ = self.free(vcpu);
        }
    }
}
