//! Auto-converge's throttle: after each slice of running, every vCPU sleeps the share of time that the governor last
//! set, whether it dirties or not.

use std::{sync::Arc, time::Duration};

use super::{
    alarm::Alarm,
    enforcement::{Enforcement, Pause},
};
use crate::{Error, exit::Exit, law::auto_converge::RUN_SLICE, rings::Whose, shared::Shared};

/// Counts one vCPU's running time and sends it to sleep.
pub(crate) struct RunSlice {
    shared: Arc<Shared>,
    vcpu: usize,
    alarm: Alarm,
    entered: Duration,
    /// How long it has run since its last sleep.
    ran: Duration,
}

impl RunSlice {
    pub(crate) fn new(shared: Arc<Shared>, vcpu: usize) -> Self {
        let alarm = Alarm::new(shared.signal);
        Self {
            shared,
            vcpu,
            alarm,
            entered: Duration::ZERO,
            ran: Duration::ZERO,
        }
    }
}

impl Enforcement for RunSlice {
    fn before_entry(&mut self, now: Duration) -> Result<Pause, Error> {
        let limits = &self.shared.limits;
        let asked = if limits.in_service() {
            limits.throttle(self.vcpu).into()
        } else {
            Duration::ZERO
        };
        self.entered = now;
        if asked.is_zero() {
            self.ran = Duration::ZERO;
            self.alarm.clear()?;
        } else if self.ran >= RUN_SLICE {
            self.ran = Duration::ZERO;
            // QEMU's throttle waits on a condition variable that a kick ends, and then waits for the rest.
            return Ok(Pause::to_its_end(asked));
        } else {
            self.alarm.set(RUN_SLICE.saturating_sub(self.ran))?;
        }
        Ok(Pause::NONE)
    }

    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<(), Error> {
        self.ran += left.saturating_sub(self.entered);
        if exit == Exit::RingFull {
            self.shared.rings.reap(Whose::All)?;
        }
        Ok(())
    }
}
