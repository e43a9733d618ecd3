//! Which limiter, and its parameters.

use std::time::Duration;

use crate::law::{LimiterKind, depth::Depth};

/// Which limiter, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSpec {
    /// The pair of law and enforcement.
    pub kind: LimiterKind,
    /// How often it measures; QEMU: 1 s.
    pub period: Duration,
    /// The longest pause that a budget may ask for at once.
    pub max_stall: Duration,
    /// The time's worth of its quota that a budget may save up.
    pub burst: Duration,
}

impl LimiterSpec {
    /// Of what its buckets are made.
    pub fn depth(&self) -> Depth {
        Depth {
            max_stall: self.max_stall,
            burst: self.burst,
        }
    }
}
