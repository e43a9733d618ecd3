//! The PID namespace: in one of its own a process knows the VMs by other ids than the kernel's events do.

use dirtyrig_probes::PidNamespace as Found;
use serde::{Deserialize, Serialize};

/// The PID namespace in which this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidNamespace {
    /// The host's.
    Initial,
    /// One below it, such as a container's.
    Own,
    /// `/proc` does not say.
    #[default]
    Unknown,
}

impl PidNamespace {
    /// Asks as the probes do.
    pub fn gather() -> Self {
        match Found::of_this_process() {
            Ok(Found::Initial) => Self::Initial,
            Ok(Found::Own) => Self::Own,
            Err(_) => Self::Unknown,
        }
    }
}
