//! Who throttles the guest of a migration.

use std::{fmt, str::FromStr};

/// Who throttles the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Nobody.
    None,
    /// QEMU, every vCPU alike.
    AutoConverge,
    /// QEMU's dirty limit, to so many MiB/s for each vCPU.
    DirtyLimit(u64),
    /// The plan, by a limiter from outside.
    Dirtyrig,
}

const DIRTY_LIMIT: &str = "dirty-limit:";

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::AutoConverge => f.write_str("auto-converge"),
            Self::DirtyLimit(quota) => write!(f, "{DIRTY_LIMIT}{quota}"),
            Self::Dirtyrig => f.write_str("dirtyrig"),
        }
    }
}

/// No strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no strategy `{text}`: give none, auto-converge, dirty-limit:MIB_S (such as dirty-limit:20) or dirtyrig"
)]
pub struct UnknownStrategy {
    text: String,
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        let limit = |quota: &str| quota.parse().ok().filter(|&quota| quota > 0).map(Self::DirtyLimit);
        match text {
            "none" => Some(Self::None),
            "auto-converge" => Some(Self::AutoConverge),
            "dirtyrig" => Some(Self::Dirtyrig),
            _ => text.strip_prefix(DIRTY_LIMIT).and_then(limit),
        }
        .ok_or_else(|| UnknownStrategy { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for text in ["none", "auto-converge", "dirty-limit:20", "dirtyrig"] {
            assert_eq!(text.parse::<Strategy>().expect(text).to_string(), text);
        }
        for text in ["", "dirty-limit", "dirty-limit:0", "dirty-limit:x", "postcopy"] {
            let error = text.parse::<Strategy>().expect_err(text).to_string();
            assert!(error.contains("dirty-limit:20"), "{error}");
        }
    }
}
