//! Lengths of time as programs are written with: `200us`, `20ms`, `2s`.

use std::{fmt, time::Duration};

/// A time in the largest unit of which it is a whole number.
pub(super) struct Length(pub(super) Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000),
            us if us % 1_000 == 0 => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{us}us"),
        }
    }
}

/// Reads a whole number of us, ms or s, up to an hour.
pub(super) fn length(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_us = match &text[digits.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    let length = Duration::from_micros(digits.parse::<u64>().ok()?.checked_mul(unit_us)?);
    (length <= Duration::from_secs(3600)).then_some(length)
}
