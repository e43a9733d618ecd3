//! Which tables a recording has: the file of each, and what its rows lacked in earlier versions.

use serde::{Serialize, de::DeserializeOwned};

use super::{EXITS, SAMPLES, SUMMARY, stand_ins};
use crate::model::{ExitRow, Sample, Summary};

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
