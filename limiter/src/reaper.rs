//! The background reaper: empties every ring once an interval, so that no page waits in one for ever.
//!
//! It owns nothing, reaps under the lock of [`Rings`](crate::rings::Rings), kicks nobody, and ends when dropped. In QEMU
//! its interval is 1 s, as long as a measuring period; here it follows the period for the same reason: a reaper that
//! flushes twice a period would halve the floor of a limiter that works beside it.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{rings::Whose, shared::Shared, stop::Stop};

/// The reaping thread; dropping it ends it.
pub(crate) struct Reaper {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts to reap every `interval`; while a limit is in force only if `beside` the limiter.
    pub(crate) fn start(shared: Arc<Shared>, interval: Duration, beside: bool) -> Self {
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let work = move || {
            let mut cpu = Duration::ZERO;
            while !told.wait(interval) {
                if shared.limits.in_service() && !beside {
                    continue;
                }
                if let Err(error) = shared.rings.reap(Whose::All) {
                    shared.fail(error);
                    return;
                }
                shared.add_helpers_cpu(&mut cpu);
            }
        };
        let thread = thread::Builder::new()
            .name("reaper".into())
            .spawn(work)
            .expect("the system has room for one more thread");
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}
