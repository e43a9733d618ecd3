//! What counts pages in the kernel, for the limiters that need it.

use anyhow::Context as _;
use dirtyrig_limiter::{PageCounter, law::LimiterKind};
use dirtyrig_machine::page_counters;

/// A counter for each of `vcpus` vCPUs if `kind` needs them, else none.
pub(super) fn for_limiter(kind: LimiterKind, vcpus: usize) -> anyhow::Result<Vec<Box<dyn PageCounter>>> {
    if !kind.needs_page_counter() {
        return Ok(Vec::new());
    }
    page_counters(vcpus).with_context(|| format!("limiter `{kind}` can't run here; `budget` can"))
}
