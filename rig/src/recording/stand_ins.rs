//! What recordings of earlier versions wrote for what they did not know: `NaN`, 0 or `unknown`. Read back it is not known.

use crate::model::{Sample, Summary};

/// A row without stand-ins.
pub(super) fn sample(row: &Sample) -> Sample {
    // A guest without a counter of ours had no rate, and counts of 0.
    let is_untold = row.guest_mib_s.is_some_and(f64::is_nan);
    let told = |count: Option<u64>| count.filter(|_| !is_untold);
    Sample {
        ring_mib_s: number(row.ring_mib_s),
        guest_mib_s: number(row.guest_mib_s),
        guest_read_mib_s: number(row.guest_read_mib_s),
        utilisation_pct: number(row.utilisation_pct),
        written_pages: told(row.written_pages),
        read_pages: told(row.read_pages),
        ..row.clone()
    }
}

/// The same for a summary.
pub(super) fn summary(row: Summary) -> Summary {
    let paused = |length: Option<f64>| length.filter(|_| row.pauses != Some(0));
    let bound = |rate: Option<f64>| number(rate).filter(|&rate| rate > 0.0);
    Summary {
        guest: row.guest.filter(|name| name != "unknown"),
        ring_entries: row.ring_entries.filter(|&entries| entries > 0),
        memory_mib: row.memory_mib.filter(|&mib| mib > 0),
        unlimited_mib_s: number(row.unlimited_mib_s),
        ring_mib_s: number(row.ring_mib_s),
        ring_median_mib_s: number(row.ring_median_mib_s),
        ring_sd_mib_s: number(row.ring_sd_mib_s),
        ring_ci_low_mib_s: number(row.ring_ci_low_mib_s),
        ring_ci_high_mib_s: number(row.ring_ci_high_mib_s),
        guest_mib_s: number(row.guest_mib_s),
        guest_median_mib_s: number(row.guest_median_mib_s),
        guest_sd_mib_s: number(row.guest_sd_mib_s),
        guest_ci_low_mib_s: number(row.guest_ci_low_mib_s),
        guest_ci_high_mib_s: number(row.guest_ci_high_mib_s),
        guest_read_mib_s: number(row.guest_read_mib_s),
        stall_p50_us: paused(row.stall_p50_us),
        stall_p99_us: paused(row.stall_p99_us),
        stall_p999_us: paused(row.stall_p999_us),
        stall_max_us: paused(row.stall_max_us),
        lateness_p50_us: paused(row.lateness_p50_us).filter(|_| row.asked_us != Some(0)),
        lateness_p99_us: paused(row.lateness_p99_us).filter(|_| row.asked_us != Some(0)),
        predicted_floor_mib_s: bound(row.predicted_floor_mib_s),
        cap_floor_mib_s: bound(row.cap_floor_mib_s),
        ..row
    }
}

fn number(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_for_nothing_is_nothing() {
        let old = Sample {
            guest_mib_s: Some(f64::NAN),
            written_pages: Some(0),
            harvested_pages: Some(0),
            ..Sample::default()
        };
        let row = sample(&old);
        assert_eq!((row.guest_mib_s, row.written_pages), (None, None));
        assert_eq!(row.harvested_pages, Some(0), "what was counted stays");
        let old = Summary {
            guest: Some("unknown".to_owned()),
            predicted_floor_mib_s: Some(0.0),
            cap_floor_mib_s: Some(16.0),
            pauses: Some(0),
            stall_max_us: Some(0.0),
            unlimited_mib_s: Some(f64::NAN),
            memory_mib: Some(0),
            ..Summary::default()
        };
        let row = summary(old);
        let expected = Summary {
            cap_floor_mib_s: Some(16.0),
            pauses: Some(0),
            ..Summary::default()
        };
        assert_eq!(row, expected);
    }
}
