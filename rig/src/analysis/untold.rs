//! Guests that keep no counter of ours: a VM that was attached to.
//!
//! Their true rates are not known, `NaN` in samples and summaries. Whether and where such a vCPU settled is judged by the
//! pages that the kernel logged, which the samples have as harvested.

use dirtyrig_limiter::units::Pages;

use crate::recording::schema::{Sample, Summary};

/// The rate at which pages were logged from an earlier sample, its time and its count, to `row`; 0 without one.
pub fn logged_rate(earlier: Option<(f64, u64)>, row: &Sample) -> f64 {
    earlier.map_or(0.0, |(t_s, pages)| {
        let span_s = row.t_s - t_s;
        let gain = Pages(row.harvested_pages.saturating_sub(pages)).to_mib();
        if span_s > 0.0 { gain / span_s } else { 0.0 }
    })
}

/// Whether no true rate is known of these samples.
pub(super) fn is_untold(samples: &[&Sample]) -> bool {
    !samples.is_empty() && samples.iter().all(|row| row.guest_mib_s.is_nan())
}

/// The samples of one vCPU with the pages logged in the place of those written.
pub(super) fn by_log(samples: &[&Sample]) -> Vec<Sample> {
    let mut earlier = None;
    let told = samples.iter().map(|&row| {
        let guest_mib_s = logged_rate(earlier, row);
        earlier = Some((row.t_s, row.harvested_pages));
        Sample {
            guest_mib_s,
            guest_read_mib_s: 0.0,
            written_pages: row.harvested_pages,
            ..row.clone()
        }
    });
    told.collect()
}

/// Takes out of a summary what was put in the place of the truth.
pub(super) fn untell(summary: Summary) -> Summary {
    const UNKNOWN: f64 = f64::NAN;
    Summary {
        guest_mib_s: UNKNOWN,
        guest_median_mib_s: UNKNOWN,
        guest_sd_mib_s: UNKNOWN,
        guest_ci_low_mib_s: UNKNOWN,
        guest_ci_high_mib_s: UNKNOWN,
        guest_read_mib_s: UNKNOWN,
        error_mib_s: None,
        error_pct: None,
        reason: format!(
            "{}; by the pages logged, as this guest keeps no counter",
            summary.reason
        ),
        ..summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(t_s: f64, harvested_pages: u64) -> Sample {
        Sample {
            t_s,
            harvested_pages,
            guest_mib_s: f64::NAN,
            ..Sample::default()
        }
    }

    #[test]
    fn the_log_stands_in_for_the_truth() {
        let rows = [row(1.0, 256), row(1.5, 512), row(2.0, 1280)];
        let rows: Vec<&Sample> = rows.iter().collect();
        assert!(is_untold(&rows));
        let rates: Vec<f64> = by_log(&rows).iter().map(|row| row.guest_mib_s).collect();
        assert_eq!(rates, [0.0, 2.0, 6.0]);
        assert_eq!(by_log(&rows)[2].written_pages, 1280);
    }

    #[test]
    fn a_guest_that_stands_still_is_not_an_untold_one() {
        let told = Sample::default();
        assert!(!is_untold(&[&told]) && !is_untold(&[]));
    }
}
