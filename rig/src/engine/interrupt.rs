//! A stop token: set once, by ctrl-c or SIGTERM, and every wait of the rig ends at once.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

/// What the process exits with on the spot: 128 + SIGINT, what a shell expects of an interrupted program.
pub const EXIT_CODE: u8 = 130;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The instant was reached.
    Reached,
    /// The token was set first.
    Interrupted,
}

/// What an experiment waits on: the machine's clock, or in tests one that needs no waiting.
pub trait Clock {
    /// The time.
    fn now(&self) -> Instant;
    /// Waits until `deadline`, or until the experiment is to stop.
    fn wait_until(&self, deadline: Instant) -> Waited;
}

/// The stop token; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    /// A token that SIGINT, SIGTERM and SIGHUP set. The second signal ends the process on the spot, for whoever finds
    /// the orderly end too slow: what was recorded until then is on disk already.
    pub fn from_signals() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let token = interrupt.clone();
        ctrlc::set_handler(move || {
            if token.is_set() {
                std::process::exit(i32::from(EXIT_CODE));
            }
            token.set();
        })?;
        Ok(interrupt)
    }

    /// Sets the token and wakes every waiter.
    pub fn set(&self) {
        *self.inner.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.changed.notify_all();
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        *self.inner.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Interrupt {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait_until(&self, deadline: Instant) -> Waited {
        let mut set = self.inner.set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::Reached;
            }
            set = self
                .inner
                .changed
                .wait_timeout(set, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Waited::Interrupted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_passed_deadline_is_reached_and_a_set_token_wins_over_it() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.wait_until(Instant::now()), Waited::Reached);
        interrupt.set();
        assert_eq!(interrupt.wait_until(Instant::now()), Waited::Interrupted);
    }

    #[test]
    fn setting_it_wakes_a_waiter_on_another_thread() {
        let interrupt = Interrupt::default();
        let waiter = std::thread::spawn({
            let interrupt = interrupt.clone();
            // Far enough away that only the token can end the wait.
            move || interrupt.wait_until(Instant::now() + Duration::from_hours(1))
        });
        interrupt.set();
        assert_eq!(waiter.join().expect("the waiter does not panic"), Waited::Interrupted);
    }
}
