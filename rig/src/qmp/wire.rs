//! The words of the protocol that server and client share.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The one member of it.
    #[serde(rename = "QMP")]
    pub qmp: Hello,
}

/// The contents of a greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who speaks.
    pub version: Version,
    /// What may be enabled by `qmp_capabilities`.
    pub capabilities: Vec<String>,
}

/// A version, as in the greeting and as `query-version` returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of QEMU whose commands are spoken.
    pub qemu: Triple,
    /// Who made it.
    pub package: String,
}

/// Three numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triple {
    /// Raised with what is incompatible.
    pub major: u32,
    /// Raised with each release.
    pub minor: u32,
    /// Raised with each correction.
    pub micro: u32,
}

/// The classes of errors that a client can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorClass {
    /// Any error that no other class is for.
    GenericError,
    /// No such command, or not now.
    CommandNotFound,
    /// The device is not active.
    DeviceNotActive,
    /// No such device.
    DeviceNotFound,
    /// KVM lacks a capability.
    KVMMissingCap,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{desc}")]
pub struct Error {
    /// Its class.
    pub class: ErrorClass,
    /// For people.
    pub desc: String,
}

impl Error {
    /// An error of the class that has no meaning of its own.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: desc.into(),
        }
    }

    /// A command that isn't there, or not now.
    pub fn not_found(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::CommandNotFound,
            desc: desc.into(),
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::generic(format!("{error:#}"))
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What the command returned, or why it failed.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What the request said as its `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What it returned.
    Return(Value),
    /// Why it failed.
    Error(Error),
}

impl From<Result<Value, Error>> for Outcome {
    fn from(result: Result<Value, Error>) -> Self {
        result.map_or_else(Self::Error, Self::Return)
    }
}

/// Something that happened, told without being asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its name.
    pub event: String,
    /// What is to be known of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// When it happened.
    pub timestamp: Timestamp,
}

/// A moment, since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: u64,
    /// The rest.
    pub microseconds: u32,
}

/// One row of `query-vcpu-dirty-limit`; rates in MiB/s, which QEMU writes as MB/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DirtyLimitInfo {
    /// Index of the vCPU.
    pub cpu_index: u64,
    /// The limit.
    pub limit_rate: u64,
    /// The rate last read.
    pub current_rate: u64,
}

/// How a dirty rate is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirtyRateMode {
    /// Pages are hashed at random, and hashed again later. What a client means that names none.
    #[default]
    PageSampling,
    /// The dirty bitmap is counted.
    DirtyBitmap,
    /// The dirty rings are counted.
    DirtyRing,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirtyRateStatus {
    /// None was begun.
    #[default]
    Unstarted,
    /// It runs.
    Measuring,
    /// It is done.
    Measured,
}

/// In which unit a calculation time is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds, what a client means that names none.
    #[default]
    Second,
    /// Milliseconds.
    Millisecond,
}

/// What `query-dirty-rate` returns; rates in MiB/s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DirtyRateInfo {
    /// How far the measurement is.
    pub status: DirtyRateStatus,
    /// Its method.
    pub mode: DirtyRateMode,
    /// When it began, in seconds since 1970 UTC.
    pub start_time: u64,
    /// How long it takes, in `calc_time_unit`.
    pub calc_time: u64,
    /// The unit of `calc_time`; QEMU before 8.2 leaves it out.
    #[serde(default)]
    pub calc_time_unit: TimeUnit,
    /// Pages hashed of each GiB; 0 where none are.
    pub sample_pages: u64,
    /// The rate of the whole VM, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_rate: Option<u64>,
    /// The rate of each vCPU, once measured by dirty ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu_dirty_rate: Option<Vec<VcpuDirtyRate>>,
}

/// The measured rate of one vCPU, in MiB/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VcpuDirtyRate {
    /// Index of the vCPU.
    pub id: u64,
    /// Its rate.
    pub dirty_rate: u64,
}
