//! The eBPF quota as the page counter of `budget-ebpf`: one slot a vCPU.

use std::{error::Error, sync::Arc};

use dirtyrig_limiter::{KickSignal, PageCounter, units::Pages};
use dirtyrig_probes::Quota;

/// A counter for each of `vcpus` vCPUs.
pub(crate) fn counters(vcpus: usize) -> Vec<Box<dyn PageCounter>> {
    let slots = u32::try_from(vcpus).expect("a test has few vCPUs");
    let quota = Arc::new(Quota::attach(slots).expect("eBPF works here"));
    (0..slots)
        .map(|slot| {
            let quota = Arc::clone(&quota);
            Box::new(Slot { quota, slot }) as Box<dyn PageCounter>
        })
        .collect()
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
