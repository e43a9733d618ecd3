//! Guests that keep no counter of ours: a VM that was attached to.
//!
//! Their true rates are not known. Whether and where such a vCPU settled is judged by the pages that the kernel logged,
//! which the samples have as harvested. A log that stays empty says nothing: the guest may be idle, or its dirty logging off.

use dirtyrig_limiter::units::Pages;

use crate::model::{Sample, Summary};

/// The rate at which pages were logged from an earlier sample, its time and its count, to `row`; `None` where that is not
/// known, and without an earlier sample.
pub fn logged_rate(earlier: Option<(f64, u64)>, row: &Sample) -> Option<f64> {
    let ((t_s, pages), now) = earlier.zip(row.harvested_pages)?;
    let span_s = row.t_s - t_s;
    (span_s > 0.0).then(|| Pages(now.saturating_sub(pages)).to_mib() / span_s)
}

/// Whether no true rate is known of these samples.
pub(super) fn is_untold(samples: &[&Sample]) -> bool {
    !samples.is_empty() && samples.iter().all(|row| row.guest_mib_s.is_none())
}

/// The samples of one vCPU with the pages logged in the place of those written.
pub(super) fn by_log(samples: &[&Sample]) -> Vec<Sample> {
    let mut earlier = None;
    let told = samples.iter().map(|&row| {
        let guest_mib_s = logged_rate(earlier, row);
        earlier = row.harvested_pages.map(|pages| (row.t_s, pages));
        Sample {
            guest_mib_s,
            guest_read_mib_s: None,
            written_pages: row.harvested_pages,
            ..row.clone()
        }
    });
    told.collect()
}

/// A rate by the log: one of 0 is not known.
pub(super) fn told_by_log(rate: Option<f64>) -> Option<f64> {
    rate.filter(|&rate| rate > 0.0)
}

/// Takes out of a summary what was put in the place of the truth.
pub(super) fn untell(summary: Summary) -> Summary {
    Summary {
        guest_mib_s: None,
        guest_median_mib_s: None,
        guest_sd_mib_s: None,
        guest_ci_low_mib_s: None,
        guest_ci_high_mib_s: None,
        guest_read_mib_s: None,
        error_mib_s: None,
        error_pct: None,
        ..summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(t_s: f64, harvested_pages: Option<u64>) -> Sample {
        Sample {
            t_s,
            harvested_pages,
            ..Sample::default()
        }
    }

    #[test]
    fn the_log_stands_in_for_the_truth() {
        let rows = [row(1.0, Some(256)), row(1.5, Some(512)), row(2.0, Some(1280))];
        let rows: Vec<&Sample> = rows.iter().collect();
        assert!(is_untold(&rows));
        let rates: Vec<_> = by_log(&rows).iter().map(|row| row.guest_mib_s).collect();
        assert_eq!(rates, [None, Some(2.0), Some(6.0)]);
        assert_eq!(by_log(&rows)[2].written_pages, Some(1280));
    }

    #[test]
    fn without_a_log_there_is_no_rate() {
        let rows = [row(1.0, None), row(1.5, Some(512)), row(2.0, Some(512))];
        let rates: Vec<_> = by_log(&rows.iter().collect::<Vec<_>>())
            .iter()
            .map(|row| row.guest_mib_s)
            .collect();
        assert_eq!(rates, [None, None, Some(0.0)]);
        assert_eq!(told_by_log(Some(0.0)), None, "an empty log may be one that is off");
    }

    #[test]
    fn a_guest_that_stands_still_is_not_an_untold_one() {
        let told = Sample {
            guest_mib_s: Some(0.0),
            ..Sample::default()
        };
        assert!(!is_untold(&[&told]) && !is_untold(&[]));
    }
}
