//! Exact fixed-point amounts of pages, so that nothing is lost or won by rounding however often a bucket is touched.

use std::{iter::Sum, time::Duration};

use crate::units::{Pages, Quota};

/// Units in a page: a rate in millionths of a page per second times a time in nanoseconds is a whole number of them.
const PER_PAGE: i128 = 1_000_000_000_000_000;

/// Millionths of a page per second. A quota is rounded to the nearest; at 0.25 MiB/s that is within a part in 10^8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenRate(u64);

impl TokenRate {
    /// At least one unit, so that every quota makes progress.
    pub(super) fn of(quota: Quota) -> Self {
        // The cast saturates, at a quota of 7 x 10^10 MiB/s.
        Self(((quota.rate().pages_per_sec() * 1e6).round() as u64).max(1))
    }

    /// What comes in during `span`.
    pub(super) fn during(self, span: Duration) -> Tokens {
        let nanos = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
        Tokens(i128::from(self.0).saturating_mul(nanos))
    }

    /// How long `tokens` take to come in, rounded up to a nanosecond; no time for a debt.
    pub(super) fn time_for(self, tokens: Tokens) -> Duration {
        let nanos = tokens.or_zero().0.unsigned_abs().div_ceil(u128::from(self.0));
        // Saturates at 584 years.
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
        Pages(u64::try_from(self.or_zero().0 / PER_PAGE).unwrap_or(u64::MAX))
    }

    /// What a debt forgiven would leave.
    pub(super) fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `number` of these.
    pub(super) fn times(self, number: usize) -> Self {
        Self(self.0.saturating_mul(i128::try_from(number).unwrap_or(i128::MAX)))
    }

    /// `parts` equal parts of it, and what can't be divided: less than one unit each.
    pub(super) fn divided(self, parts: usize) -> (Self, Self) {
        let parts = i128::try_from(parts).unwrap_or(i128::MAX).max(1);
        (Self(self.0 / parts), Self(self.0 % parts))
    }

    /// The same amount with a debt that keeps its length in time when the rate changes; what is there stays.
    pub(super) fn repriced(self, from: TokenRate, to: TokenRate) -> Self {
        let owed = from.time_for(Self::ZERO.minus(self));
        if owed.is_zero() {
            self
        } else {
            Self::ZERO.minus(to.during(owed))
        }
    }

    /// The smallest amount above nothing.
    pub(super) const UNIT: Self = Self(1);
}

impl From<Pages> for Tokens {
    fn from(pages: Pages) -> Self {
        Self(i128::from(pages.0).saturating_mul(PER_PAGE))
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(tokens: I) -> Self {
        tokens.fold(Self::ZERO, Self::plus)
    }
}

/// The time up to which something has been filled, and how it follows a clock that is not to be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilledAt(Duration);

/// A clock that steps back by less than this was read by two threads in another order than they came here; one that
/// steps back by more was set, and waiting for it to catch up could stop a vCPU for good.
const REORDERED_WITHIN: Duration = Duration::from_secs(1);

impl FilledAt {
    pub(super) fn new(now: Duration) -> Self {
        Self(now)
    }

    /// The time since the last call; none where the clock stepped back, so that no time counts twice.
    pub(super) fn advance(&mut self, now: Duration) -> Duration {
        let span = now.saturating_sub(self.0);
        if self.0.saturating_sub(now) < REORDERED_WITHIN {
            self.0 = self.0.max(now);
        } else {
            self.0 = now;
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(mib_per_sec: f64) -> TokenRate {
        TokenRate::of(Quota::new(mib_per_sec).expect("a quota"))
    }

    #[test]
    fn a_rate_times_a_time_is_exact() {
        // 0.25 MiB/s is 64 pages per second: one in 15.625 ms.
        let slow = rate(0.25);
        assert_eq!(slow.during(Duration::from_micros(15625)), Tokens::ONE_PAGE);
        assert_eq!(slow.during(Duration::from_nanos(15_624_999)).whole_pages(), Pages(0));
        assert_eq!(slow.time_for(Tokens::ONE_PAGE), Duration::from_micros(15625));
        // 10 GiB/s is 2,621,440 pages per second.
        let fast = rate(10_240.0);
        assert_eq!(
            fast.during(Duration::from_secs(3600)).whole_pages(),
            Pages(2_621_440 * 3600)
        );
        assert_eq!(fast.time_for(Pages(2_621_440).into()), Duration::from_secs(1));
    }

    #[test]
    fn a_time_is_rounded_up() {
        // 3 pages per second: one takes 333,333,333.3 ns.
        let third = rate(3.0 / 256.0);
        let needed = third.time_for(Tokens::ONE_PAGE);
        assert_eq!(needed, Duration::from_nanos(333_333_334));
        assert!(third.during(needed) >= Tokens::ONE_PAGE);
    }

    #[test]
    fn extremes_saturate_instead_of_wrapping() {
        let fastest = rate(f64::MAX);
        assert_eq!(fastest.during(Duration::MAX).whole_pages(), Pages(u64::MAX));
        let slowest = rate(f64::MIN_POSITIVE);
        assert_eq!(slowest.time_for(Tokens(i128::MAX)), Duration::from_nanos(u64::MAX));
        assert_eq!(Tokens(i128::MIN).minus(Tokens::ONE_PAGE), Tokens(i128::MIN));
    }

    #[test]
    fn a_debt_keeps_its_length_in_time() {
        let (old, new) = (rate(500.0), rate(1.0));
        let debt = Tokens::ZERO.minus(old.during(Duration::from_millis(4)));
        assert_eq!(
            debt.repriced(old, new),
            Tokens::ZERO.minus(new.during(Duration::from_millis(4)))
        );
        assert_eq!(Tokens::ONE_PAGE.repriced(old, new), Tokens::ONE_PAGE);
    }

    #[test]
    fn no_time_counts_twice() {
        let ms = Duration::from_millis;
        let mut filled = FilledAt::new(ms(10_000));
        assert_eq!(filled.advance(ms(10_005)), ms(5));
        assert_eq!(filled.advance(ms(10_003)), ms(0), "another thread's older reading");
        assert_eq!(filled.advance(ms(10_006)), ms(1));
        assert_eq!(filled.advance(ms(2_000)), ms(0), "the clock was set back");
        assert_eq!(filled.advance(ms(2_004)), ms(4), "and goes on from there");
    }
}
