//! Which limiter, and its parameters.

use std::time::Duration;

use crate::law::{LimiterKind, depth::Depth};

/// Which limiter, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// `kind` as it is usually run: with QEMU's period, pauses of 5 ms, and a second's worth of the quota saved up.
    pub fn new(kind: LimiterKind) -> Self {
        Self {
            kind,
            period: Duration::from_secs(1),
            max_stall: Duration::from_millis(5),
            burst: Duration::from_secs(1),
        }
    }

    /// Of what its buckets are made.
    pub fn depth(&self) -> Depth {
        Depth {
            max_stall: self.max_stall,
            burst: self.burst,
        }
    }
}
