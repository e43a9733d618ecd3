//! What is compared: the figures of a vCPU that can get worse.

use crate::model::{Summary, Verdict};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// One figure.
#[derive(Debug)]
pub struct Metric {
    /// Its name, as in `summary.csv` where it is a column.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What it is, in words.
    pub about: &'static str,
    /// Which way is better.
    pub better: Better,
    /// The least change that matters, as a share of the baseline ...
    pub least_share: f64,
    /// ... and in the metric's unit; the larger of the two counts.
    pub least: f64,
    /// Its value in one run; `None` where the run has none.
    pub value: fn(&Summary) -> Option<f64>,
}

impl Metric {
    /// The least change from `baseline` that matters, in the metric's unit.
    pub fn least_from(&self, baseline: f64) -> f64 {
        self.least.max(self.least_share * baseline.abs())
    }
}

/// All of them. A tenth of a stall is what the host's own timers move it from day to day; rates and floors are steadier.
pub const METRICS: [Metric; 12] = [
    Metric {
        name: "stall_p50_us",
        unit: "us",
        about: "median pause of the vCPU",
        better: Better::Lower,
        least_share: 0.10,
        least: 0.0,
        value: |row| row.stall_p50_us,
    },
    Metric {
        name: "stall_p99_us",
        unit: "us",
        about: "its 99th percentile",
        better: Better::Lower,
        least_share: 0.10,
        least: 0.0,
        value: |row| row.stall_p99_us,
    },
    Metric {
        name: "stall_p999_us",
        unit: "us",
        about: "its 99.9th percentile",
        better: Better::Lower,
        least_share: 0.10,
        least: 0.0,
        value: |row| row.stall_p999_us,
    },
    Metric {
        name: "lateness_p50_us",
        unit: "us",
        about: "slept minus asked, median",
        better: Better::Lower,
        least_share: 0.10,
        least: 25.0,
        value: |row| row.lateness_p50_us,
    },
    Metric {
        name: "lateness_p99_us",
        unit: "us",
        about: "slept minus asked, 99th percentile",
        better: Better::Lower,
        least_share: 0.10,
        least: 50.0,
        value: |row| row.lateness_p99_us,
    },
    Metric {
        name: "settle_s",
        unit: "s",
        about: "time until the rate is steady; at least the time it had where it never was",
        better: Better::Lower,
        least_share: 0.20,
        least: 0.5,
        value: settle_s,
    },
    Metric {
        name: "overshoot_pct",
        unit: "%",
        about: "how far past its level the rate went first",
        better: Better::Lower,
        least_share: 0.20,
        least: 5.0,
        value: |row| row.overshoot_pct.filter(|_| row.quota_mib_s.is_some()),
    },
    Metric {
        name: "error_pct",
        unit: "%",
        about: "steady-state error of the true rate, without its sign",
        better: Better::Lower,
        least_share: 0.10,
        least: 2.0,
        value: |row| row.error_pct.map(f64::abs),
    },
    Metric {
        name: "floor_mib_s",
        unit: "MiB/s",
        about: "true rate where the quota is below what the limiter can hold",
        better: Better::Lower,
        least_share: 0.05,
        least: 0.5,
        value: floor_mib_s,
    },
    Metric {
        name: "unlimited_mib_s",
        unit: "MiB/s",
        about: "rate without a limit, with the ring on",
        better: Better::Higher,
        least_share: 0.05,
        least: 0.0,
        value: |row| row.unlimited_mib_s,
    },
    Metric {
        name: "harvest_ns_entry",
        unit: "ns",
        about: "to harvest an entry of a ring",
        better: Better::Lower,
        least_share: 0.10,
        least: 0.5,
        value: |row| of_cell(row, row.harvest_ns_entry),
    },
    Metric {
        name: "reset_ns_entry",
        unit: "ns",
        about: "to give an entry back and have it reset",
        better: Better::Lower,
        least_share: 0.10,
        least: 0.5,
        value: |row| of_cell(row, row.reset_ns_entry),
    },
];

/// Of a vCPU that never settled the second half is measured, so it had twice that.
fn settle_s(row: &Summary) -> Option<f64> {
    row.quota_mib_s?;
    Some(row.settle_s.unwrap_or(2.0 * row.measured_s))
}

fn floor_mib_s(row: &Summary) -> Option<f64> {
    let bounds = [row.predicted_floor_mib_s, row.cap_floor_mib_s];
    let quota = row.quota_mib_s?;
    let is_bound = bounds.iter().flatten().any(|&bound| quota < bound) && row.verdict != Verdict::GuestTooSlow;
    row.guest_mib_s.filter(|_| is_bound)
}

/// A figure of the whole cell, which each of its rows has: it counts once.
fn of_cell(row: &Summary, value: Option<f64>) -> Option<f64> {
    value.filter(|_| row.vcpu == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, row: &Summary) -> Option<f64> {
        let metric = METRICS.iter().find(|metric| metric.name == name).expect("a metric");
        (metric.value)(row)
    }

    #[test]
    fn what_did_not_happen_has_no_value() {
        let idle = Summary::default();
        for metric in METRICS {
            assert_eq!((metric.value)(&idle), None, "{}", metric.name);
        }
    }

    #[test]
    fn a_floor_is_that_of_a_quota_below_it() {
        let mut row = Summary {
            quota_mib_s: Some(25.0),
            predicted_floor_mib_s: Some(64.0),
            guest_mib_s: Some(65.0),
            verdict: Verdict::FloorBound,
            ..Summary::default()
        };
        assert_eq!(value("floor_mib_s", &row), Some(65.0));
        row.quota_mib_s = Some(100.0);
        assert_eq!(value("floor_mib_s", &row), None);
    }

    #[test]
    fn one_that_never_settled_took_all_the_time_it_had() {
        let row = Summary {
            quota_mib_s: Some(25.0),
            measured_s: 15.0,
            ..Summary::default()
        };
        assert_eq!(value("settle_s", &row), Some(30.0));
    }

    #[test]
    fn the_least_change_that_matters_grows_with_the_figure() {
        let late = &METRICS[3];
        assert!((late.least_from(60.0) - 25.0).abs() < 1e-9);
        assert!((late.least_from(-1000.0) - 100.0).abs() < 1e-9);
    }
}
