//! A one-shot timer that takes the calling vCPU thread out of the guest.

use std::time::Duration;

use nix::{
    errno::Errno,
    sys::timer::{Expiration, Timer, TimerSetTimeFlags},
    time::ClockId,
};

use crate::{Error, KickSignal};

/// The timer of one vCPU thread, created by that thread when it is first set.
pub(super) struct Alarm {
    signal: KickSignal,
    timer: Option<Timer>,
    is_set: bool,
}

impl Alarm {
    /// One that kicks by `signal`.
    pub(super) fn new(signal: KickSignal) -> Self {
        Self {
            signal,
            timer: None,
            is_set: false,
        }
    }

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
        let failed = |errno: Errno| Error::Timer { source: errno.into() };
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => {
                let event = self.signal.event_for_this_thread();
                none.insert(Timer::new(ClockId::CLOCK_MONOTONIC, event).map_err(failed)?)
            }
        };
        timer
            .set(Expiration::OneShot(span.into()), TimerSetTimeFlags::empty())
            .map_err(failed)
    }
}
