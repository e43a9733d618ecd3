//! The one clock of a machine: time since it was made. Everything pure takes its readings as arguments.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has spent.
pub(crate) fn thread_cpu() -> Duration {
    // It fails for no thread that asks for its own.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A monotonic clock with an epoch of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// Time since it was started.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
