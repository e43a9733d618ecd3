//! A VM that is held from outside, as QMP clients command it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use dirtyrig_limiter::units::Pages;
use dirtyrig_probes::identity::proc_text;

use super::Limiter;
use crate::{
    engine::{interrupt::Interrupt, limits::Limits},
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
                thread: Some(book.thread.cast_signed()).filter(|&thread| thread != 0),
            })
            .collect()
    }

    fn is_running(&self) -> bool {
        let status = proc_text(format!("/proc/{}/status", self.limiter.process()));
        status.is_ok_and(|status| !status.lines().any(|line| line.starts_with("State:\tT")))
    }

    fn limits(&self) -> anyhow::Result<Box<dyn Limits + '_>> {
        Ok(Box::new(&*self.limiter))
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
