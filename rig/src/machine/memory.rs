//! Memory, and the size of the pages it is handed out in.

use serde::{Deserialize, Serialize};

use super::root::Root;

/// The machine's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total_mib: Option<u64>,
    /// What a new process can have without swapping, by the kernel's estimate.
    pub available_mib: Option<u64>,
    /// When anonymous memory is given transparent huge pages: `always`, `madvise` or `never`.
    pub thp_enabled: Option<String>,
    /// When a fault waits for a huge page to be made.
    pub thp_defrag: Option<String>,
    /// Reserved huge pages, all and free, and their size.
    pub hugepages_total: Option<u64>,
    /// See `hugepages_total`.
    pub hugepages_free: Option<u64>,
    /// See `hugepages_total`.
    pub hugepage_kib: Option<u64>,
}

impl Memory {
    /// Reads `/proc/meminfo` and the huge page settings.
    pub fn gather(root: &Root) -> Self {
        const THP: &str = "/sys/kernel/mm/transparent_hugepage";
        let meminfo = root.text("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            meminfo.lines().find_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix(':')?;
                value.split_whitespace().next()?.parse().ok()
            })
        };
        let in_mib = |kib: u64| kib / 1024;
        Self {
            total_mib: field("MemTotal").map(in_mib),
            available_mib: field("MemAvailable").map(in_mib),
            thp_enabled: root.choice(format!("{THP}/enabled")),
            thp_defrag: root.choice(format!("{THP}/defrag")),
            hugepages_total: field("HugePages_Total"),
            hugepages_free: field("HugePages_Free"),
            hugepage_kib: field("Hugepagesize"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    #[test]
    fn reads_kib_as_mib_and_counts_as_they_are() {
        let tree = Tree::new(&[
            (
                "/proc/meminfo",
                "MemTotal:       24683864 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB\nHugePages_Total:       8\n\
                 HugePages_Free:        3\nHugepagesize:       2048 kB\n",
            ),
            (
                "/sys/kernel/mm/transparent_hugepage/enabled",
                "always [madvise] never\n",
            ),
        ]);
        let memory = Memory::gather(&tree.root());
        assert_eq!((memory.total_mib, memory.available_mib), (Some(24_105), Some(2048)));
        assert_eq!(
            (memory.hugepages_total, memory.hugepages_free, memory.hugepage_kib),
            (Some(8), Some(3), Some(2048))
        );
        assert_eq!(
            (memory.thp_enabled.as_deref(), memory.thp_defrag),
            (Some("madvise"), None)
        );
    }
}
