//! The rows of `exits.csv`. Field names are the column names, and column names are a promise: `results/README.md`
//! documents each, with its formula.

use serde::{Deserialize, Serialize};

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitSource {
    /// `KVM_RUN` returned to the VMM.
    #[default]
    Userspace,
    /// The guest left guest mode.
    Hardware,
}

/// Exits of one vCPU for one reason, from the cell's 0 to its end: a row of `exits.csv`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRow {
    /// Which cell of the recording.
    pub cell: u32,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// What was counted.
    pub source: ExitSource,
    /// Why, by name: `KVM_EXIT_*`, an error of `KVM_RUN`, or what this kernel calls a hardware exit.
    pub reason: String,
    /// How many; empty where it is not known, and `reason` says why.
    pub count: Option<u64>,
}
