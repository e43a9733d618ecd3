//! The eBPF quota of `dirtyrig-probes` as the page counter that `budget-ebpf` wants: one slot per vCPU.

use std::{error::Error, sync::Arc};

use dirtyrig_limiter::{KickSignal, PageCounter, units::Pages};
use dirtyrig_probes::Quota;

/// A counter for each of `vcpus` vCPUs.
///
/// # Errors
/// Those of [`Quota::attach`]: no privilege, no eBPF, or more vCPUs than it has slots.
pub fn page_counters(vcpus: usize) -> Result<Vec<Box<dyn PageCounter>>, dirtyrig_probes::Error> {
    // More than there are slots, where it doesn't fit.
    let slots = u32::try_from(vcpus).unwrap_or(u32::MAX);
    let quota = Arc::new(Quota::attach(slots)?);
    let counter = |slot| {
        Box::new(Slot {
            quota: Arc::clone(&quota),
            slot,
        }) as Box<dyn PageCounter>
    };
    Ok((0..slots).map(counter).collect())
}

struct Slot {
    quota: Arc<Quota>,
    slot: u32,
}

impl PageCounter for Slot {
    fn bind_to_this_thread(&mut self, signal: KickSignal) -> Result<(), Box<dyn Error + Send + Sync>> {
        let thread = nix::unistd::gettid().as_raw().unsigned_abs();
        Ok(self
            .quota
            .limit(std::process::id(), thread, self.slot, signal.number())?)
    }

    fn set_budget(&mut self, pages: Option<Pages>) {
        let pages = pages.map_or(i64::MAX, |pages| i64::try_from(pages.0).unwrap_or(i64::MAX));
        self.quota.refill(self.slot, pages);
    }
}
