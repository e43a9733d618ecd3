//! The rows of `summary.csv`. Field names are the column names, and column names are a promise: `results/README.md`
//! documents each, with its formula.

use serde::{Deserialize, Serialize};

use super::{Moves, Verdict};

/// One vCPU of one cell, measured over its settled part: a row of `summary.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Which cell of the recording.
    pub cell: u32,
    /// Which repetition of the same settings, from 0.
    pub repetition: u32,
    /// Name and version of the VMM.
    pub vmm: String,
    /// Name of the limiter.
    pub limiter: String,
    /// Name of the program that this vCPU ran; empty of a guest that is not ours.
    pub guest: Option<String>,
    /// Size of a vCPU's dirty ring, where it is known.
    pub ring_entries: Option<u32>,
    /// The limiter's measuring period.
    pub period_ms: u64,
    /// How many vCPUs the cell had: as many rows finish it.
    pub vcpus: u32,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Memory of the guest that is dirtied, all vCPUs together; empty of a guest that is not ours.
    pub memory_mib: Option<u64>,
    /// The limit in force at the end, empty for none.
    pub quota_mib_s: Option<f64>,
    /// Rate of this vCPU before any limit was set, with the ring on. It and every figure that follows is empty where it is
    /// not known, or does not exist.
    pub unlimited_mib_s: Option<f64>,
    /// Length of the measured, settled part.
    pub measured_s: f64,
    /// What the limiter believed: mean of its readings over the measured part.
    pub ring_mib_s: Option<f64>,
    /// Median of the readings.
    pub ring_median_mib_s: Option<f64>,
    /// Standard deviation of the readings.
    pub ring_sd_mib_s: Option<f64>,
    /// Lower end of the 95 % confidence interval of the mean reading.
    pub ring_ci_low_mib_s: Option<f64>,
    /// Upper end.
    pub ring_ci_high_mib_s: Option<f64>,
    /// The truth: pages written over the length of the measured part.
    pub guest_mib_s: Option<f64>,
    /// Median of the true rate, by windows.
    pub guest_median_mib_s: Option<f64>,
    /// Standard deviation of the true rate, by windows.
    pub guest_sd_mib_s: Option<f64>,
    /// Lower end of the 95 % confidence interval of the mean true rate.
    pub guest_ci_low_mib_s: Option<f64>,
    /// Upper end.
    pub guest_ci_high_mib_s: Option<f64>,
    /// Width at half height of the windows under which spread, oscillation and settling are judged.
    pub window_s: f64,
    /// Pages only read, over the length of the measured part.
    pub guest_read_mib_s: Option<f64>,
    /// Share of the measured part that the vCPU spent in `KVM_RUN`.
    pub utilisation_pct: Option<f64>,
    /// From the last change of the quota to the settled part; empty where it did not settle.
    pub settle_s: Option<f64>,
    /// How far the rate went past its settled level before it settled there, as a share of that level.
    pub overshoot_pct: Option<f64>,
    /// Steady-state error: true rate minus quota, empty without a quota.
    pub error_mib_s: Option<f64>,
    /// The same as a share of the quota.
    pub error_pct: Option<f64>,
    /// Standard deviation of the true rate as a share of its mean.
    pub oscillation_pct: Option<f64>,
    /// Ring-full exits per second.
    pub ring_full_per_s: Option<f64>,
    /// Pauses in the measured part; where there were none, the percentiles below are empty.
    pub pauses: Option<u64>,
    /// Median length of a pause, from the exit to the next entry.
    pub stall_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub stall_p99_us: Option<f64>,
    /// The same, 99.9th percentile.
    pub stall_p999_us: Option<f64>,
    /// The longest pause.
    pub stall_max_us: Option<f64>,
    /// Slept minus asked, a pause that was asked for: median. Negative where a sleep was cut short.
    pub lateness_p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub lateness_p99_us: Option<f64>,
    /// Sleep asked for in the measured part.
    pub asked_us: Option<u64>,
    /// Sleep had in the measured part.
    pub slept_us: Option<u64>,
    /// Ring bytes / period; empty where the limiter has no such floor.
    pub predicted_floor_mib_s: Option<f64>,
    /// What the cap of the throttle lets through; empty where the limiter has no cap.
    pub cap_floor_mib_s: Option<f64>,
    /// Whether the quota was held, or why not.
    pub verdict: Verdict,
    /// The verdict in words, with its figures.
    pub reason: String,
    /// Time to harvest an entry of a ring, over all vCPUs since the limit was set; empty where it was not measured.
    #[serde(default)]
    pub harvest_ns_entry: Option<f64>,
    /// Time to give an entry back and have the kernel reset it, the same way.
    #[serde(default)]
    pub reset_ns_entry: Option<f64>,
    /// How late the machine woke a sleeper that had nothing to do with the guest, 99th percentile over the cell.
    #[serde(default)]
    pub timer_late_p99_us: Option<f64>,
    /// Share of the worst CPU's time that the hypervisor gave to others while the cell ran.
    #[serde(default)]
    pub steal_pct: Option<f64>,
    /// What disturbed the cell, in words; empty where nothing did, or nobody looked.
    #[serde(default)]
    pub disturbed: String,
    /// The limit of all vCPUs together at the end, empty for none.
    #[serde(default)]
    pub vm_quota_mib_s: Option<f64>,
    /// The true rate of all vCPUs together over this one's measured part.
    #[serde(default)]
    pub vm_guest_mib_s: Option<f64>,
    /// CPU time that limiting and harvesting took, as a share of the measured part.
    #[serde(default)]
    pub cost_pct: Option<f64>,
    /// Pages pushed to the ring in the measured part, by the kernel. This and all that follows is empty where the probes
    /// did not watch.
    #[serde(default)]
    pub probe_pushed_pages: Option<u64>,
    /// Entries of the ring that were reset.
    #[serde(default)]
    pub probe_reset_pages: Option<u64>,
    /// Returns of `KVM_RUN` because the ring was full.
    #[serde(default)]
    pub probe_ring_full_exits: Option<u64>,
    /// All returns of `KVM_RUN`.
    #[serde(default)]
    pub probe_userspace_exits: Option<u64>,
    /// Exits from guest mode; empty where the kernel does not report them.
    #[serde(default)]
    pub probe_hardware_exits: Option<u64>,
    /// Pauses that the kernel saw begin in the measured part; where 0, the next six are empty.
    #[serde(default)]
    pub probe_pauses: Option<u64>,
    /// Median length of such a pause, from the return of `KVM_RUN` to the next entry.
    #[serde(default)]
    pub probe_stall_p50_us: Option<f64>,
    /// The same, 99th percentile.
    #[serde(default)]
    pub probe_stall_p99_us: Option<f64>,
    /// The same, 99.9th percentile.
    #[serde(default)]
    pub probe_stall_p999_us: Option<f64>,
    /// The longest one.
    #[serde(default)]
    pub probe_stall_max_us: Option<f64>,
    /// What of a pause nobody asked for: median.
    #[serde(default)]
    pub probe_overhead_p50_us: Option<f64>,
    /// The same, 99th percentile.
    #[serde(default)]
    pub probe_overhead_p99_us: Option<f64>,
    /// Records and counts that the probes lost in this cell.
    #[serde(default)]
    pub probe_lost: Option<u64>,
    /// What the probes could not see, and why.
    #[serde(default)]
    pub probe_notes: String,
    /// The rate at which pages of all vCPUs together were harvested, or logged, in the measured part.
    #[serde(default)]
    pub vm_ring_mib_s: Option<f64>,
    /// What was still moving when the cell ended; empty where nothing was, or it was too short to tell.
    #[serde(default)]
    pub moves: Option<Moves>,
}
