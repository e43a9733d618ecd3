//! The speed of a link, in bits or bytes per second.

use std::{fmt, str::FromStr};

use dirtyrig_limiter::units::MibPerSec;

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    bytes_per_sec: u64,
}

/// Units and their bytes.
const UNITS: [(&str, f64); 11] = [
    ("kbps", 1e3 / 8.0),
    ("Mbps", 1e6 / 8.0),
    ("Gbps", 1e9 / 8.0),
    ("bps", 1.0 / 8.0),
    ("KiB/s", 1024.0),
    ("MiB/s", 1_048_576.0),
    ("GiB/s", 1_073_741_824.0),
    ("kB/s", 1e3),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("B/s", 1.0),
];

impl Bandwidth {
    /// Of `bytes` a second.
    pub fn of_bytes(bytes_per_sec: u64) -> Self {
        Self { bytes_per_sec }
    }

    /// In bytes per second.
    pub fn bytes_per_sec(self) -> u64 {
        self.bytes_per_sec
    }

    /// As a rate.
    pub fn rate(self) -> MibPerSec {
        MibPerSec(self.bytes_per_sec as f64 / f64::from(1 << 20))
    }
}

/// No bandwidth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is no bandwidth: give a number and its unit, in bits or bytes a second, such as 1Gbps, 940Mbps or 110MiB/s"
)]
pub struct NotABandwidth {
    value: String,
}

impl FromStr for Bandwidth {
    type Err = NotABandwidth;

    fn from_str(text: &str) -> Result<Self, NotABandwidth> {
        let refuse = || NotABandwidth { value: text.to_owned() };
        let (unit, bytes) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(refuse)?;
        let number: f64 = text[..text.len() - unit.len()]
            .trim_end()
            .parse()
            .map_err(|_| refuse())?;
        let bytes = (number * bytes).round();
        // QEMU takes no more than fits a signed number of 64 bits.
        if bytes >= 1.0 && bytes < i64::MAX as f64 {
            Ok(Self::of_bytes(bytes as u64))
        } else {
            Err(refuse())
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB/s", self.rate().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_are_told_apart() {
        let bytes = |text: &str| text.parse::<Bandwidth>().expect(text).bytes_per_sec();
        assert_eq!(bytes("1Gbps"), 125_000_000);
        assert_eq!(bytes("0.5 Mbps"), 62_500);
        assert_eq!(bytes("64MiB/s"), 64 << 20);
        assert_eq!(bytes("10MB/s"), 10_000_000);
        assert_eq!(bytes("8bps"), 1);
    }

    #[test]
    fn what_has_no_unit_or_no_sense_is_refused() {
        for text in [
            "100", "1gbps", "MiB/s", "-1Mbps", "0Gbps", "NaNGbps", "infGbps", "1e30GB/s", "",
        ] {
            let error = text.parse::<Bandwidth>().expect_err(text).to_string();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("1Gbps"),
                "{error}"
            );
        }
    }
}
