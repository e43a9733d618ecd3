//! The words in which a limit is set, cancelled and asked for.

use crate::{
    law::LimiterKind,
    units::{MibPerSec, Quota},
};

/// Which vCPUs a command is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every vCPU, those that are plugged later included.
    All,
    /// The vCPU of this index.
    One(usize),
}

/// One row of a query: a vCPU that has a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitInfo {
    /// Index of the vCPU.
    pub vcpu: usize,
    /// The rate it is limited to.
    pub quota: Quota,
    /// The rate the limiter last read of it; 0 before the first period has ended.
    pub current: MibPerSec,
}

/// Why a limit command was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// The index is beyond the machine's maximum.
    #[error("vCPU {vcpu} does not exist: this machine has room for {max} vCPUs, so give an index from 0 to {}", max - 1)]
    BadIndex {
        /// The index that was given.
        vcpu: usize,
        /// How many vCPUs the machine can have.
        max: usize,
    },
    /// The limiter `none` limits nothing.
    #[error("limiter `none` can't hold a limit: choose another one")]
    NoLimiter,
    /// The limiter has no bucket in which a quota could be saved up.
    #[error(
        "limiter `{limiter}` has no burst to set: its law is another; choose {}",
        saving_up()
    )]
    NoBurst {
        /// The limiter.
        limiter: LimiterKind,
    },
    /// The limiter knows limits of single vCPUs only.
    #[error(
        "limiter `{limiter}` can't hold one quota for the whole VM: limit the vCPUs, or choose {}",
        whole_vm()
    )]
    NoVmLimit {
        /// The limiter.
        limiter: LimiterKind,
    },
}

fn whole_vm() -> String {
    names(LimiterKind::limits_whole_vm)
}

fn saving_up() -> String {
    names(LimiterKind::saves_up)
}

fn names(able: fn(LimiterKind) -> bool) -> String {
    let able = LimiterKind::ALL.into_iter().filter(|&kind| able(kind));
    able.map(LimiterKind::name).collect::<Vec<_>>().join(", ")
}
