//! Values of flags and files whose range is checked where they are read.

use std::{fmt, num::ParseIntError, str::FromStr, time::Duration};

use dirtyrig_ring::{MAX_RING_ENTRIES, MIN_RING_ENTRIES, RingSize};

/// Entries of a dirty ring, as they are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ring(pub RingSize);

impl Ring {
    /// Takes `entries` if a ring can have as many.
    pub fn new(entries: u32) -> Result<Self, ValueError> {
        if !(MIN_RING_ENTRIES..=MAX_RING_ENTRIES).contains(&entries) {
            return Err(ValueError::RingOutOfRange { entries });
        }
        RingSize::new(entries).map(Self).map_err(|_| {
            let above = entries.next_power_of_two();
            ValueError::RingBetweenPowers {
                entries,
                below: above / 2,
                above,
            }
        })
    }
}

impl FromStr for Ring {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let entries = text.parse().map_err(|source| ValueError::NotARing {
            value: text.to_owned(),
            source,
        })?;
        Self::new(entries)
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.entries(), f)
    }
}

/// How often a limiter measures and adjusts: 100 ms to 60 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// Below it, a period is shorter than the rig's own sampling.
    pub const MIN: Duration = Duration::from_millis(100);
    /// Above it, a cell takes hours.
    pub const MAX: Duration = Duration::from_mins(1);

    /// Takes `length` if it is in range.
    pub fn new(length: Duration) -> Result<Self, ValueError> {
        if (Self::MIN..=Self::MAX).contains(&length) {
            Ok(Self(length))
        } else {
            Err(ValueError::Period {
                value: humantime::format_duration(length).to_string(),
            })
        }
    }

    /// Its length.
    pub fn length(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::new(duration(text, "a period", "1s")?)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

/// A length of time above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let length = duration(text, "a duration", "30s")?;
        if length.is_zero() {
            Err(ValueError::Empty { value: text.to_owned() })
        } else {
            Ok(Self(length))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

fn duration(text: &str, what: &'static str, example: &'static str) -> Result<Duration, ValueError> {
    humantime::parse_duration(text).map_err(|source| ValueError::Duration {
        value: text.to_owned(),
        what,
        example,
        source,
    })
}

/// A whole number that is at least `MIN` and at most `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Count<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// Takes `value` if it is in range.
    pub fn new(value: u64) -> Result<Self, ValueError> {
        if (MIN..=MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(ValueError::Count {
                value,
                min: MIN,
                max: MAX,
            })
        }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Count<MIN, MAX> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let value = text.parse().map_err(|source| ValueError::NotACount {
            value: text.to_owned(),
            min: MIN,
            max: MAX,
            source,
        })?;
        Self::new(value)
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a text is not the value that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// A ring that KVM would refuse, on this host or another.
    #[error(
        "a ring of {entries} entries can't be had: give a power of two from {MIN_RING_ENTRIES} to {MAX_RING_ENTRIES}"
    )]
    RingOutOfRange {
        /// The number that was given.
        entries: u32,
    },
    /// In range, but between two sizes.
    #[error("a ring of {entries} entries is no power of two: use {below} or {above}")]
    RingBetweenPowers {
        /// The number that was given.
        entries: u32,
        /// The next smaller size.
        below: u32,
        /// The next larger size.
        above: u32,
    },
    /// No number of entries.
    #[error(
        "`{value}` is no ring size: give a number of entries, a power of two from {MIN_RING_ENTRIES} to \
         {MAX_RING_ENTRIES}"
    )]
    NotARing {
        /// The text that was given.
        value: String,
        /// What the parser says.
        source: ParseIntError,
    },
    /// A period out of range.
    #[error("a period of {value} is out of range: give one from 100ms to 60s")]
    Period {
        /// The length that was given.
        value: String,
    },
    /// A length of no time at all.
    #[error("a duration of {value} leaves no time to measure: give one such as 30s")]
    Empty {
        /// The text that was given.
        value: String,
    },
    /// No length of time.
    #[error("`{value}` is not {what}: give a number with its unit, such as {example}")]
    Duration {
        /// The text that was given.
        value: String,
        /// What it should have been.
        what: &'static str,
        /// One that would do.
        example: &'static str,
        /// What the parser says.
        source: humantime::DurationError,
    },
    /// A number out of range.
    #[error("{value} is out of range: give a whole number from {min} to {max}")]
    Count {
        /// The number that was given.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// No number.
    #[error("`{value}` is no whole number: give one from {min} to {max}")]
    NotACount {
        /// The text that was given.
        value: String,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// What the parser says.
        source: ParseIntError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_in_range_are_rings() {
        for entries in [1024, 4096, 65536] {
            assert_eq!(Ring::new(entries).expect("in range").0.entries(), entries);
        }
        for entries in [0, 512, 1023, 65537, 131_072, u32::MAX] {
            assert!(
                matches!(Ring::new(entries), Err(ValueError::RingOutOfRange { .. })),
                "{entries}"
            );
        }
        let error = Ring::new(5000).expect_err("no power of two");
        assert_eq!(
            error.to_string(),
            "a ring of 5000 entries is no power of two: use 4096 or 8192"
        );
        assert!("-4096".parse::<Ring>().is_err());
    }

    #[test]
    fn periods_keep_to_their_range() {
        for text in ["100ms", "1s", "1500ms", "60s", "1m"] {
            assert!(text.parse::<Period>().is_ok(), "{text}");
        }
        for text in ["99ms", "61s", "0s", "1", "fast", "-1s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in ["500ms", "1m30s", "1s500ms"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
    }
}
