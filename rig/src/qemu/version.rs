//! Versions of QEMU, and the law that each has.

use std::{fmt, str::FromStr};

use dirtyrig_limiter::law::LimiterKind;
use serde::{Deserialize, Serialize};

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// 10 of 10.0.2.
    pub major: u32,
    /// 0 of 10.0.2.
    pub minor: u32,
    /// 2 of 10.0.2.
    pub micro: u32,
}

/// The first with a dirty limit.
pub const FIRST_WITH_LIMIT: Version = Version::new(7, 1, 0);

/// The first whose sleep goes on after a signal.
const FIRST_THAT_SLEEPS_ON: Version = Version::new(8, 2, 0);

impl Version {
    /// Version `major.minor.micro`.
    pub const fn new(major: u32, minor: u32, micro: u32) -> Self {
        Self { major, minor, micro }
    }

    /// The law of ours that does what this version does; `None` before it had one.
    pub fn law(self) -> Option<LimiterKind> {
        if self < FIRST_WITH_LIMIT {
            None
        } else if self < FIRST_THAT_SLEEPS_ON {
            Some(LimiterKind::Qemu72)
        } else {
            Some(LimiterKind::Qemu10)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// No version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut numbers = text
            .splitn(3, '.')
            .map(|number| number.parse().map_err(|_| NotAVersion));
        let mut next = || numbers.next().unwrap_or(Err(NotAVersion));
        Ok(Self::new(next()?, next()?, next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_follows_how_a_version_sleeps() {
        let law = |text: &str| text.parse::<Version>().expect("a version").law();
        assert_eq!(law("6.2.0"), None);
        assert_eq!(law("7.1.0"), Some(LimiterKind::Qemu72));
        assert_eq!(law("7.2.22"), Some(LimiterKind::Qemu72));
        assert_eq!(law("8.1.5"), Some(LimiterKind::Qemu72));
        assert_eq!(law("8.2.0"), Some(LimiterKind::Qemu10));
        assert_eq!(law("10.0.2"), Some(LimiterKind::Qemu10));
    }

    #[test]
    fn what_is_no_version_is_none() {
        assert_eq!(
            "10.0.2".parse::<Version>().map(|version| version.to_string()),
            Ok("10.0.2".to_owned())
        );
        for text in ["", "10", "10.0", "10.0.x", "devel"] {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text}");
        }
    }
}
