//! Why a vCPU left the guest.

/// Why a vCPU left the guest, as far as a limiter is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Its dirty ring reached the soft limit: it can't enter again before entries are harvested and reset.
    RingFull,
    /// Anything else: a kick, a deadline, a budget that is spent, or something that the VMM must handle.
    Other,
}
