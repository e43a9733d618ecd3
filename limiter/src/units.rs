//! Units in the types: pages, MiB/s, microseconds.
//!
//! QEMU's commands say "MB/s" and compute MiB/s (2^20 bytes); here every rate is MiB/s and says so.

use std::{fmt, num::ParseFloatError, str::FromStr, time::Duration};

/// Bytes in a page: the granule of the dirty ring on x86-64 without huge-page logging.
pub const PAGE_SIZE: u64 = 4096;

/// Pages in a MiB.
pub const PAGES_PER_MIB: u64 = (1 << 20) / PAGE_SIZE;

/// A number of 4 KiB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pages(pub u64);

impl Pages {
    /// As MiB, with its fraction.
    pub fn to_mib(self) -> f64 {
        self.0 as f64 / PAGES_PER_MIB as f64
    }

    /// The mean rate at which these pages pass in `span`; `None` for an empty span.
    pub fn per(self, span: Duration) -> Option<MibPerSec> {
        (!span.is_zero()).then(|| MibPerSec(self.to_mib() / span.as_secs_f64()))
    }
}

/// A rate in MiB (2^20 bytes) a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct MibPerSec(pub f64);

impl MibPerSec {
    /// As pages per second.
    pub fn pages_per_sec(self) -> f64 {
        self.0 * PAGES_PER_MIB as f64
    }
}

impl fmt::Display for MibPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)?;
        f.write_str(" MiB/s")
    }
}

/// A number of microseconds, the unit in which QEMU states a throttle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl From<Micros> for Duration {
    fn from(micros: Micros) -> Self {
        Self::from_micros(micros.0)
    }
}

/// The dirty rate that a vCPU, or a whole guest, is allowed: finite and above zero.
///
/// Zero is not a quota: in the commands it cancels.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Quota(MibPerSec);

impl Quota {
    /// Takes `mib_per_sec` if it is finite and above zero.
    ///
    /// # Errors
    /// [`QuotaError`] if it isn't.
    pub fn new(mib_per_sec: f64) -> Result<Self, QuotaError> {
        if mib_per_sec.is_finite() && mib_per_sec > 0.0 {
            Ok(Self(MibPerSec(mib_per_sec)))
        } else {
            Err(QuotaError::OutOfRange { value: mib_per_sec })
        }
    }

    /// The allowed rate.
    pub fn rate(self) -> MibPerSec {
        self.0
    }

    /// The allowed rate in MiB/s.
    pub fn mib_per_sec(self) -> f64 {
        self.0.0
    }
}

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, QuotaError> {
        let value = text.parse().map_err(|source| QuotaError::NotANumber {
            value: text.to_owned(),
            source,
        })?;
        Self::new(value)
    }
}

/// Why a value is no quota.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// Zero, negative, infinite or not a number.
    #[error("a quota of {value} MiB/s can't be held: give a finite rate above 0, such as 25")]
    OutOfRange {
        /// The rate that was given.
        value: f64,
    },
    /// Not a number at all.
    #[error("`{value}` is no quota: give a rate in MiB/s, such as 25")]
    NotANumber {
        /// The text that was given.
        value: String,
        /// What the parser says.
        source: ParseFloatError,
    },
}
