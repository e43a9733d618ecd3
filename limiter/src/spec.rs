//! Which limiter, and its parameters.

use std::time::Duration;

use crate::law::LimiterKind;

/// Which limiter, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSpec {
    /// The pair of law and enforcement.
    pub kind: LimiterKind,
    /// How often it measures; QEMU: 1 s.
    pub period: Duration,
    /// The longest pause that a budget may ask for at once.
    pub max_stall: Duration,
}
