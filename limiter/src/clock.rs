//! The one clock of a machine: time since it was made. Everything pure takes its readings as arguments.

use std::time::{Duration, Instant};

/// A monotonic clock with an epoch of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// Time since it was started.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
