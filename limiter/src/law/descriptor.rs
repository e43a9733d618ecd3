//! What there is to say of a limiter, in one place: whoever asks about one asks its descriptor.

use super::{
    full_ring::FullRingLaw,
    periodic::{PeriodicLaw, Policy},
};

/// A limiter: the law, how it is enforced, what it can do, and the words for it. It lives in the file of its law.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// Its name on a command line and in recordings.
    pub(crate) name: &'static str,
    /// What it does, in a line.
    pub(crate) description: &'static str,
    /// What decides.
    pub(crate) law: Law,
    /// What makes it happen on KVM.
    pub(crate) enforced: Enforced,
    /// How the threads around the law behave.
    pub(crate) policy: Policy,
    /// What bounds the rates that it can hold.
    pub(crate) bounds: Bounds,
    /// Whether it can hold all vCPUs together to one quota.
    pub(crate) limits_whole_vm: bool,
}

/// What decides how much a vCPU may dirty.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Law {
    /// Nothing does: there is no limit.
    Nothing,
    /// A law that adjusts a sleep once a period; made for rings of that many entries.
    Periodic(fn(u32) -> Box<dyn PeriodicLaw>),
    /// A law that computes the sleep at each full ring; one per vCPU.
    FullRing(fn() -> Box<dyn FullRingLaw>),
    /// The share of time of auto-converge.
    AutoConverge,
    /// Token buckets.
    Buckets,
    /// The intervals and the pool of the dirty quota.
    Pool,
}

/// What takes a vCPU out of its guest, and keeps it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforced {
    /// A sleep after a full ring.
    AtFullRing,
    /// A timer, in time for each grant's end.
    ByDeadline,
    /// A page counter in the kernel, on the page that ends a grant.
    ByPageCounter,
    /// Entries that are withheld, so that the ring fills after exactly the granted pages.
    ByHeldEntries,
    /// A timer after each slice of time, dirty or not.
    ByRunSlice,
}

/// What bounds the rates that a limiter can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// Whether it acts on a reading once a period; else at each exit.
    pub is_periodic: bool,
    /// Whether it needs a full ring per period to act at all.
    pub whole_rings: bool,
    /// Whether a vCPU fills a whole ring at full speed and then pauses for all of it. Its cycle is then as long as the quota
    /// allows for a ring, whatever the period.
    pub ring_cycles: bool,
    /// The least share of its unlimited rate to which it can slow a vCPU.
    pub cap_share: Option<f64>,
    /// Distance from the quota within which it makes no adjustment, in MiB/s.
    pub tolerance_mib_s: Option<f64>,
}

impl Bounds {
    /// Holds any quota.
    pub(crate) const NONE: Self = Self {
        is_periodic: false,
        whole_rings: false,
        ring_cycles: false,
        cap_share: None,
        tolerance_mib_s: None,
    };
}
