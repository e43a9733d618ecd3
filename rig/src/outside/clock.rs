//! The one clock of a limiter from outside: time since it attached. Laws and books take its readings as arguments.

use std::time::{Duration, Instant};

/// A monotonic clock with an epoch of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// Time since it was started.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
