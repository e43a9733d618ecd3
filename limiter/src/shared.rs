//! What the threads of one machine share.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, KickSignal, LimiterSpec,
    clock::{Clock, thread_cpu},
    control::Control,
    law::PageAccounts,
    limits::Limits,
    rings::Rings,
    stats::Books,
};

/// One vCPU, as seen by every thread.
#[derive(Debug, Default)]
pub(crate) struct VcpuShared {
    pub(crate) control: Control,
    pub(crate) books: Books,
}

/// One machine, as seen by every thread.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) rings: Rings,
    /// What kicks the vCPUs.
    pub(crate) signal: KickSignal,
    pub(crate) vcpus: Vec<VcpuShared>,
    pub(crate) limits: Limits,
    /// What the vCPUs may dirty, under a law that counts pages.
    accounts: Mutex<PageAccounts>,
    /// Nanoseconds of CPU time that the threads beside the vCPUs have spent. A statistic: Relaxed.
    helpers_cpu: AtomicU64,
    /// The first error that a thread ended with.
    failure: Mutex<Option<Error>>,
}

impl Shared {
    pub(crate) fn new(clock: Clock, rings: Rings, signal: KickSignal, max_vcpus: usize, limiter: LimiterSpec) -> Self {
        let vcpus = (0..max_vcpus).map(|_| VcpuShared::default()).collect();
        Self {
            clock,
            rings,
            signal,
            vcpus,
            limits: Limits::new(max_vcpus),
            accounts: Mutex::new(PageAccounts::new(limiter.kind, limiter.depth())),
            helpers_cpu: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// What the vCPUs may dirty.
    pub(crate) fn accounts(&self) -> MutexGuard<'_, PageAccounts> {
        // Every law leaves its accounts consistent after each call: a panic elsewhere takes nothing from them.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by a thread beside the vCPUs now and then: adds what it has spent since it last did, which was `noted`.
    pub(crate) fn add_helpers_cpu(&self, noted: &mut Duration) {
        let spent = thread_cpu();
        let more = spent.saturating_sub(std::mem::replace(noted, spent));
        self.helpers_cpu.fetch_add(more.as_nanos() as u64, Ordering::Relaxed);
    }

    /// CPU time that the threads beside the vCPUs have spent.
    pub(crate) fn helpers_cpu(&self) -> Duration {
        Duration::from_nanos(self.helpers_cpu.load(Ordering::Relaxed))
    }

    /// Keeps the first error; those that follow are its consequences.
    pub(crate) fn fail(&self, error: Error) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
