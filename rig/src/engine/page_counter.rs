//! The eBPF program that counts a vCPU's pages, as the limiter wants it.

use dirtyrig_limiter::{enforce::page_budget::PageCounter, law::LimiterKind};

/// A counter for each of `vcpus` vCPUs if `kind` needs them, else none.
pub(super) fn for_limiter(kind: LimiterKind, _vcpus: usize) -> anyhow::Result<Vec<Box<dyn PageCounter>>> {
    anyhow::ensure!(
        kind != LimiterKind::BudgetEbpf,
        "limiter `{kind}` needs an eBPF program"
    );
    Ok(Vec::new())
}
