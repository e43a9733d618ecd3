//! Where the probes and the quota can tell from which pages vCPUs dirty.

use dirtyrig_probes::{Source, page_sources};
use serde::{Deserialize, Serialize};

/// One source of dirtied pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSource {
    /// `ring`, `bitmap by fentry` or `bitmap by kprobe`.
    pub name: String,
    /// Why it does not work here, and what would help; `None` if it works.
    pub refused: Option<String>,
}

/// Tries all of them.
pub fn gather() -> Vec<PageSource> {
    match page_sources() {
        Ok(sources) => sources
            .into_iter()
            .map(|status| PageSource {
                name: status.source.to_string(),
                refused: status.works.err(),
            })
            .collect(),
        Err(error) => [Source::Ring, Source::BitmapByFentry, Source::BitmapByKprobe]
            .into_iter()
            .map(|source| PageSource {
                name: source.to_string(),
                refused: Some(error.to_string()),
            })
            .collect(),
    }
}
