//! How a cell ended.

use serde::{Deserialize, Serialize};

/// Why a cell ended where it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Steady, and at the quota.
    Held,
    /// Steady at ring bytes / period, which is above the quota.
    FloorBound,
    /// Steady off the quota, where the law's tolerance lets it be.
    ToleranceBound,
    /// Steady at the rate that the longest sleep still lets through, which is above the quota.
    CapBound,
    /// Steady off the quota, and no bound explains it.
    Missed,
    /// Swings about a steady mean.
    Oscillating,
    /// Still moving when its time was up.
    #[default]
    NotSettled,
    /// The quota was never reached, or the throttle could never act.
    GuestTooSlow,
    /// No limit was set.
    Unlimited,
    /// There was a limit, but nobody knows what the guest dirtied.
    Unknown,
}

impl Verdict {
    /// As people and `summary.csv` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::FloorBound => "floor-bound",
            Self::ToleranceBound => "tolerance-bound",
            Self::CapBound => "cap-bound",
            Self::Missed => "missed",
            Self::Oscillating => "oscillating",
            Self::NotSettled => "not-settled",
            Self::GuestTooSlow => "guest-too-slow",
            Self::Unlimited => "unlimited",
            Self::Unknown => "unknown",
        }
    }
}

/// What was still moving when a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moves {
    /// The rate.
    Rate,
    /// The throttle, while the rate stood still.
    Throttle,
    /// Both.
    Both,
}
