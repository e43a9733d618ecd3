//! A VM that is held from outside, as QMP clients command it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::{Pages, Quota},
};
use dirtyrig_probes::identity::proc_text;

use super::Limiter;
use crate::{
    engine::interrupt::Interrupt,
    qmp::{LimitedVm, VcpuInfo},
};

/// The VM of a [`Limiter`] whose limits clients may set; their `quit` ends the limiter, not the VM.
pub struct Remote {
    limiter: Arc<Limiter>,
    interrupt: Interrupt,
    /// Whether a client, not a signal, wanted the end. Relaxed: read after the thread that sets it was joined.
    quit: AtomicBool,
}

impl Remote {
    /// Commands `limiter`; `interrupt` ends it.
    pub fn new(limiter: Arc<Limiter>, interrupt: Interrupt) -> Self {
        Self {
            limiter,
            interrupt,
            quit: AtomicBool::new(false),
        }
    }

    /// Whether a client ended it.
    pub fn was_quit(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }
}

impl LimitedVm for Remote {
    fn vcpus(&self) -> Vec<VcpuInfo> {
        let books = self.limiter.books().into_iter();
        books
            .filter(|(_, book)| book.plugged)
            .map(|(index, book)| VcpuInfo {
                index,
                thread: book.thread.cast_signed(),
            })
            .collect()
    }

    fn is_running(&self) -> bool {
        let status = proc_text(format!("/proc/{}/status", self.limiter.process()));
        status.is_ok_and(|status| !status.lines().any(|line| line.starts_with("State:\tT")))
    }

    fn set_limit(&self, which: Which, quota: Quota) -> anyhow::Result<()> {
        Ok(self.limiter.set(which, quota)?)
    }

    fn cancel_limit(&self, which: Which) -> anyhow::Result<()> {
        Ok(self.limiter.cancel(which)?)
    }

    fn set_burst(&self, burst: Duration) -> anyhow::Result<()> {
        Ok(self.limiter.set_burst(burst)?)
    }

    fn query_limits(&self) -> anyhow::Result<Vec<LimitInfo>> {
        Ok(self.limiter.query())
    }

    fn dirtied(&self) -> anyhow::Result<Vec<Pages>> {
        let books = self.limiter.books().into_iter();
        Ok(books
            .filter(|(_, book)| book.plugged)
            .map(|(_, book)| Pages(book.pages))
            .collect())
    }

    fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
        self.interrupt.set();
    }
}
