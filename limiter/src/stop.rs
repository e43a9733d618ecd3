//! A wait that can be ended: what every thread here sleeps in.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Told once to stop, stays stopped. Shared by the thread that waits and the one that ends it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Ends every wait, now and later.
    pub(crate) fn stop(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for `span`; `true` if the wait was ended before, or had been.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        self.wait_until(Instant::now() + span)
    }

    /// Waits until `deadline`; `true` if the wait was ended before, or had been.
    pub(crate) fn wait_until(&self, deadline: Instant) -> bool {
        let mut stopped = self.lock();
        while !*stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            stopped = self
                .changed
                .wait_timeout(stopped, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // A bool is never half-written, so a panic elsewhere takes nothing from it.
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
