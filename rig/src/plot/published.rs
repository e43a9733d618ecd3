//! What was published, to compare with: QEMU patch series v11, "support dirty restraint on vCPU" (January 2022), measured
//! with one-second periods on a host that dirties 1,170 MB/s unlimited.

/// A ring size with the lowest quota held on it.
pub(crate) struct Published {
    pub(crate) ring_entries: u32,
    pub(crate) quota_mib_s: f64,
    /// The vCPU's utilisation at that quota.
    pub(crate) utilisation_pct: f64,
}

pub(crate) const MINIMUM: [Published; 2] = [
    Published {
        ring_entries: 4096,
        quota_mib_s: 25.0,
        utilisation_pct: 6.0,
    },
    Published {
        ring_entries: 65536,
        quota_mib_s: 256.0,
        utilisation_pct: 24.0,
    },
];

pub(crate) const KEY: &str = "published, QEMU series v11";
