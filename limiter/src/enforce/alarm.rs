//! A one-shot timer that takes the calling vCPU thread out of the guest.

use std::time::Duration;

use nix::{
    errno::Errno,
    sys::{
        signal::{SigEvent, SigevNotify},
        timer::{Expiration, Timer, TimerSetTimeFlags},
    },
    time::ClockId,
    unistd::gettid,
};

use crate::kvm::{Error, kick::KICK};

/// The timer of one vCPU thread, created by that thread when it is first set.
#[derive(Default)]
pub(super) struct Alarm {
    timer: Option<Timer>,
    is_set: bool,
}

impl Alarm {
    /// Kicks this thread once `span`, which isn't zero, is over; replaces what was set before.
    pub(super) fn set(&mut self, span: Duration) -> Result<(), Error> {
        self.is_set = true;
        self.arm(span)
    }

    /// Lets no kick come any more, or at most one that is under way.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        // A timer that expires by itself needs no call: only one that is still running does.
        if std::mem::take(&mut self.is_set) {
            self.arm(Duration::ZERO)
        } else {
            Ok(())
        }
    }

    fn arm(&mut self, span: Duration) -> Result<(), Error> {
        let failed = |source: Errno| Error::Timer { source };
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => none.insert(create().map_err(failed)?),
        };
        timer
            .set(Expiration::OneShot(span.into()), TimerSetTimeFlags::empty())
            .map_err(failed)
    }
}

fn create() -> Result<Timer, Errno> {
    let notify = SigevNotify::SigevThreadId {
        signal: KICK,
        thread_id: gettid().as_raw(),
        si_value: 0,
    };
    Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))
}
