//! The clock of every record.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Now, on the clock of every [`Stall`](crate::Stall) and [`Push`](crate::Push): `CLOCK_MONOTONIC`.
#[expect(clippy::missing_panics_doc, reason = "it would be a fault in here")]
pub fn monotonic_now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("Linux always has CLOCK_MONOTONIC")
        .into()
}
