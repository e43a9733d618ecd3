//! The rows of a recording. Field names are the column names, and column names are a promise: `results/README.md`
//! documents each, with its formula.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{EXITS, SAMPLES, SUMMARY, stand_ins};

/// Version of the recording's format; raised when a column changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// Stands where a limiter's name does in rows of VMs that were only watched.
pub const OBSERVED: &str = "observed";

/// A row of one of the tables.
pub trait Row: Default + Serialize + DeserializeOwned {
    /// Name of the file that holds such rows.
    const FILE: &'static str;

    /// Columns that came after the first recordings of this schema version: one without them reads as "not measured".
    const LATER: &'static [&'static str];

    /// The cell that the row belongs to.
    fn cell(&self) -> u32;

    /// Itself, as read from a file, without what earlier versions wrote for what they did not know.
    #[must_use]
    fn without_stand_ins(self) -> Self {
        self
    }
}

impl Row for Sample {
    const FILE: &'static str = SAMPLES;
    const LATER: &'static [&'static str] = &["vm_quota_mib_s", "held_pages", "cost_us"];

    fn cell(&self) -> u32 {
        self.cell
    }

    fn without_stand_ins(self) -> Self {
        stand_ins::sample(&self)
    }
}

impl Row for Summary {
    const FILE: &'static str = SUMMARY;
    const LATER: &'static [&'static str] = &[
        "harvest_ns_entry",
        "reset_ns_entry",
        "timer_late_p99_us",
        "steal_pct",
        "disturbed",
        "vm_quota_mib_s",
        "vm_guest_mib_s",
        "cost_pct",
        "probe_pushed_pages",
        "probe_reset_pages",
        "probe_ring_full_exits",
        "probe_userspace_exits",
        "probe_hardware_exits",
        "probe_pauses",
        "probe_stall_p50_us",
        "probe_stall_p99_us",
        "probe_stall_p999_us",
        "probe_stall_max_us",
        "probe_overhead_p50_us",
        "probe_overhead_p99_us",
        "probe_lost",
        "probe_notes",
        "vm_ring_mib_s",
        "moves",
    ];

    fn cell(&self) -> u32 {
        self.cell
    }

    fn without_stand_ins(self) -> Self {
        stand_ins::summary(self)
    }
}

impl Row for ExitRow {
    const FILE: &'static str = EXITS;
    const LATER: &'static [&'static str] = &[];

    fn cell(&self) -> u32 {
        self.cell
    }
}

/// One vCPU at one instant of one cell: a row of `samples.csv`.
///
/// Counts are cumulative since the cell's start, so that any window can be recomputed from two rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which cell of the recording.
    pub cell: u32,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Seconds since the cell began to be measured (negative while warming up, unlimited).
    pub t_s: f64,
    /// The limit in force, empty for none.
    pub quota_mib_s: Option<f64>,
    /// What the limiter believes: its own last reading. This and all that follows is empty where it is not known.
    pub ring_mib_s: Option<f64>,
    /// The truth: the guest's own counter over the time since the previous sample.
    pub guest_mib_s: Option<f64>,
    /// Pages that the guest only read, as a rate over the time since the previous sample.
    pub guest_read_mib_s: Option<f64>,
    /// The throttle in force: sleep a ring-full exit (QEMU laws) or of the last pause (others).
    pub throttle_us: Option<u64>,
    /// Share of the time since the previous sample that the vCPU spent in `KVM_RUN`.
    pub utilisation_pct: Option<f64>,
    /// Pages written, by the guest's own counter.
    pub written_pages: Option<u64>,
    /// Pages only read, by the guest's own counter.
    pub read_pages: Option<u64>,
    /// Pages harvested from the vCPU's ring; one that is dirtied again after a reset counts again.
    pub harvested_pages: Option<u64>,
    /// Exits because the ring was full.
    pub ring_full_exits: Option<u64>,
    /// All exits from `KVM_RUN` to the VMM, ring-full ones included.
    pub exits: Option<u64>,
    /// Sleep asked for.
    pub asked_us: Option<u64>,
    /// Sleep had.
    pub slept_us: Option<u64>,
    /// The limit of all vCPUs together, empty for none.
    #[serde(default)]
    pub vm_quota_mib_s: Option<f64>,
    /// Harvested pages whose entries are held back from reset: they are dirty, and can be written unlogged.
    #[serde(default)]
    pub held_pages: Option<u64>,
    /// CPU time that limiting and harvesting took: of the vCPU's thread outside `KVM_RUN`, and its part of the threads
    /// beside it.
    #[serde(default)]
    pub cost_us: Option<u64>,
}

/// Why a cell ended where it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Steady, and at the quota.
    Held,
    /// Steady at ring bytes / period, which is above the quota.
    FloorBound,
    /// Steady off the quota, where the law's tolerance lets it be.
    ToleranceBound,
    /// Steady at the rate that the longest sleep still lets through, which is above the quota.
    CapBound,
    /// Steady off the quota, and no bound explains it.
    Missed,
    /// Swings about a steady mean.
    Oscillating,
    /// Still moving when its time was up.
    #[default]
    NotSettled,
    /// The quota was never reached, or the throttle could never act.
    GuestTooSlow,
    /// No limit was set.
    Unlimited,
    /// There was a limit, but nobody knows what the guest dirtied.
    Unknown,
}

impl Verdict {
    /// As people and `summary.csv` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::FloorBound => "floor-bound",
            Self::ToleranceBound => "tolerance-bound",
            Self::CapBound => "cap-bound",
            Self::Missed => "missed",
            Self::Oscillating => "oscillating",
            Self::NotSettled => "not-settled",
            Self::GuestTooSlow => "guest-too-slow",
            Self::Unlimited => "unlimited",
            Self::Unknown => "unknown",
        }
    }
}

/// What was still moving when a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moves {
    /// The rate.
    Rate,
    /// The throttle, while the rate stood still.
    Throttle,
    /// Both.
    Both,
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::table;

    #[test]
    fn column_names_are_the_promised_ones() {
        assert_eq!(
            table::columns::<Sample>().join(","),
            "cell,vcpu,t_s,quota_mib_s,ring_mib_s,guest_mib_s,guest_read_mib_s,throttle_us,utilisation_pct,\
             written_pages,read_pages,harvested_pages,ring_full_exits,exits,asked_us,slept_us,\
             vm_quota_mib_s,held_pages,cost_us"
        );
        assert_eq!(
            table::columns::<Summary>().join(","),
            "cell,repetition,vmm,limiter,guest,ring_entries,period_ms,vcpus,vcpu,memory_mib,quota_mib_s,\
             unlimited_mib_s,measured_s,ring_mib_s,ring_median_mib_s,ring_sd_mib_s,ring_ci_low_mib_s,\
             ring_ci_high_mib_s,guest_mib_s,guest_median_mib_s,guest_sd_mib_s,guest_ci_low_mib_s,guest_ci_high_mib_s,\
             window_s,guest_read_mib_s,utilisation_pct,settle_s,overshoot_pct,error_mib_s,error_pct,oscillation_pct,\
             ring_full_per_s,pauses,stall_p50_us,stall_p99_us,stall_p999_us,stall_max_us,lateness_p50_us,\
             lateness_p99_us,asked_us,slept_us,predicted_floor_mib_s,cap_floor_mib_s,verdict,reason,\
             harvest_ns_entry,reset_ns_entry,timer_late_p99_us,steal_pct,disturbed,vm_quota_mib_s,vm_guest_mib_s,cost_pct,\
             probe_pushed_pages,probe_reset_pages,probe_ring_full_exits,probe_userspace_exits,probe_hardware_exits,\
             probe_pauses,probe_stall_p50_us,probe_stall_p99_us,probe_stall_p999_us,probe_stall_max_us,\
             probe_overhead_p50_us,probe_overhead_p99_us,probe_lost,probe_notes,vm_ring_mib_s,moves"
        );
        assert_eq!(table::columns::<ExitRow>().join(","), "cell,vcpu,source,reason,count");
    }
}
