//! Whether the eBPF probes watch a cell.

use std::{fmt, str::FromStr};

/// What to do about the probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeMode {
    /// Watch if this machine lets us; else say so once and go on without.
    #[default]
    Auto,
    /// Don't.
    Off,
    /// Watch, or fail.
    Require,
}

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no mode of the probes: give auto, off or require")]
pub struct UnknownProbeMode {
    text: String,
}

impl ProbeMode {
    const ALL: [Self; 3] = [Self::Auto, Self::Off, Self::Require];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Require => "require",
        }
    }
}

impl FromStr for ProbeMode {
    type Err = UnknownProbeMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| UnknownProbeMode { text: text.to_owned() })
    }
}

impl fmt::Display for ProbeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
