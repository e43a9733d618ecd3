//! The rows of a recording. Field names are the column names, and column names are a promise: `results/README.md`
//! documents each.

use serde::{Deserialize, Serialize};

/// Version of the recording's format; raised when a column changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// One vCPU at one instant of one cell: a row of `samples.csv`.
///
/// Counts are cumulative since the cell's start, so that any window can be recomputed from two rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which cell of the recording.
    pub cell: u32,
    pub vcpu: u32,
    /// Seconds since the cell began to be measured (negative while warming up, unlimited).
    pub t_s: f64,
    /// The limit in force, empty for none.
    pub quota_mib_s: Option<f64>,
    /// What the limiter believes: its own last reading.
    pub ring_mib_s: f64,
    /// The truth: the guest's own counter over the time since the previous sample.
    pub guest_mib_s: f64,
    /// Pages that the guest only read, as a rate over the time since the previous sample.
    pub guest_read_mib_s: f64,
    /// The throttle in force: sleep a ring-full exit (QEMU laws) or of the last pause (others).
    pub throttle_us: u64,
    /// Share of the time since the previous sample that the vCPU spent in KVM_RUN.
    pub utilisation_pct: f64,
    pub written_pages: u64,
    pub read_pages: u64,
    pub harvested_pages: u64,
    pub ring_full_exits: u64,
    /// All exits from KVM_RUN to the VMM, ring-full ones included.
    pub exits: u64,
    pub asked_us: u64,
    pub slept_us: u64,
}

/// Why a cell ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Held,
    FloorBound,
    ToleranceBound,
    CapBound,
    Oscillating,
    NotSettled,
    GuestTooSlow,
    Unlimited,
}

/// One vCPU of one cell, measured over its settled part: a row of `summary.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub cell: u32,
    pub repetition: u32,
    pub vmm: String,
    pub limiter: String,
    pub guest: String,
    pub ring_entries: u32,
    pub period_ms: u64,
    pub vcpus: u32,
    pub vcpu: u32,
    pub memory_mib: u64,
    pub quota_mib_s: Option<f64>,
    /// Rate of this vCPU before any limit was set, with the ring on.
    pub unlimited_mib_s: f64,
    /// Length of the measured, settled part.
    pub measured_s: f64,
    pub ring_mib_s: f64,
    pub ring_sd_mib_s: f64,
    pub ring_ci_low_mib_s: f64,
    pub ring_ci_high_mib_s: f64,
    pub guest_mib_s: f64,
    pub guest_sd_mib_s: f64,
    pub guest_ci_low_mib_s: f64,
    pub guest_ci_high_mib_s: f64,
    pub guest_read_mib_s: f64,
    pub utilisation_pct: f64,
    /// Empty where it did not settle.
    pub settle_s: Option<f64>,
    pub overshoot_pct: f64,
    pub error_mib_s: Option<f64>,
    pub error_pct: Option<f64>,
    pub oscillation_pct: f64,
    pub ring_full_per_s: f64,
    pub stall_p50_us: f64,
    pub stall_p99_us: f64,
    pub stall_p999_us: f64,
    pub stall_max_us: f64,
    /// Slept minus asked, a pause.
    pub lateness_p50_us: f64,
    pub lateness_p99_us: f64,
    pub asked_us: u64,
    pub slept_us: u64,
    /// Ring bytes / period.
    pub predicted_floor_mib_s: f64,
    /// One percent of the unlimited rate: what the cap of the throttle allows.
    pub cap_floor_mib_s: f64,
    pub verdict: Verdict,
    pub reason: String,
}
