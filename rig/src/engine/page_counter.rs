//! The eBPF quota as the page counter that the limiter wants: one slot a vCPU.

use std::{error::Error, sync::Arc};

use anyhow::Context as _;
use dirtyrig_limiter::{KickSignal, PageCounter, law::LimiterKind, units::Pages};
use dirtyrig_probes::Quota;

/// A counter for each of `vcpus` vCPUs if `kind` needs them, else none.
pub(super) fn for_limiter(kind: LimiterKind, vcpus: usize) -> anyhow::Result<Vec<Box<dyn PageCounter>>> {
    if !kind.needs_page_counter() {
        return Ok(Vec::new());
    }
    let slots = u32::try_from(vcpus).context("too many vCPUs")?;
    let quota = Quota::attach(slots).with_context(|| format!("limiter `{kind}` can't run here; `budget` can"))?;
    let quota = Arc::new(quota);
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
