//! Exact fixed-point amounts of pages, so that nothing is lost or won by rounding however often a bucket is touched.

use std::time::Duration;

use crate::units::{Pages, Quota};

/// Units in a page. A rate in millionths of a page a second times a time in nanoseconds is a whole number of them.
const PER_PAGE: i128 = 1_000_000_000_000_000;

/// Millionths of a page a second: quotas are rounded to this, a part in 60 million at 0.25 MiB/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenRate(u64);

impl TokenRate {
    /// At least one unit, so that every quota makes progress.
    pub(super) fn of(quota: Quota) -> Self {
        // A float cast saturates, and a quota that saturates here (10^10 GiB/s) limits nothing anyway.
        Self(((quota.rate().pages_per_sec() * 1e6).round() as u64).max(1))
    }

    /// What comes in during `span`.
    pub(super) fn during(self, span: Duration) -> Tokens {
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
        Tokens(i128::from(self.0).saturating_mul(nanos))
    }

    /// How long `tokens` take to come in, rounded up to a nanosecond; zero for what is there already.
    pub(super) fn time_for(self, tokens: Tokens) -> Duration {
        if tokens.0 <= 0 {
            return Duration::ZERO;
        }
        let nanos = tokens.0.unsigned_abs().div_ceil(u128::from(self.0));
        // 584 years.
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// An amount of pages with its fraction; a debt below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tokens(i128);

impl Tokens {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const ONE_PAGE: Self = Self(PER_PAGE);

    /// The whole pages in it; none in a debt.
    pub(super) fn whole_pages(self) -> Pages {
        Pages(u64::try_from((self.0 / PER_PAGE).max(0)).unwrap_or(u64::MAX))
    }

    pub(super) fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<Pages> for Tokens {
    fn from(pages: Pages) -> Self {
        Self(i128::from(pages.0).saturating_mul(PER_PAGE))
    }
}
