//! When a cell counts as disturbed: by something that was not there when the baseline was taken, and is not ours.
//!
//! A cell is disturbed if any of these holds, each against the baseline of the same machine:
//!
//! - **stolen**: on the worst CPU the hypervisor took more than 2 % of the time above the baseline;
//! - **others**: processes that are not ours used more than a tenth of a CPU above the baseline;
//! - **late**: timers were late by more than four times the baseline and by more than 500 us above it, at the 99th
//!   percentile. Only judged where half a CPU or more was left idle: vCPUs that fill every CPU delay a sleeper by the
//!   scheduler's slice, which is the load asked for and no disturbance. It takes 100 samples, so that the percentile is
//!   not the maximum.
//!
//! The rule finds change, not noise as such: a machine that is never quiet has a noisy baseline, and it is the check of
//! noise that says so.
//!
//! Time is counted in ticks of 10 ms, so the first two thresholds grow by two ticks over the span, for the cell and for
//! the baseline: a baseline of 400 ms may be off by 5 % of a CPU.

use std::fmt;

use super::NoiseReport;

/// Bearable on the worst CPU, in percent above the baseline: what a hypervisor's own housekeeping takes.
const STEAL_PCT: f64 = 2.0;

/// Bearable use by others, in CPUs above the baseline: kernel threads and daemons stay well below.
const OTHERS_CPUS: f64 = 0.1;

/// Lateness has a long tail on any machine: repeated baselines of the same machine differ by half.
const LATE_FACTOR: f64 = 4.0;

/// Where timers are exact, four times very little is still very little; throttles are milliseconds long.
const LATE_US: f64 = 500.0;

/// Idle CPU below which lateness says nothing about others.
const IDLE_CPUS: f64 = 0.5;

/// Samples below which the 99th percentile is the maximum.
const LEAST_SAMPLES: u64 = 100;

/// Two ticks: one at each end of a span.
const TICKS_S: f64 = 0.02;

/// What disturbed a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
    /// The hypervisor ran others on our CPUs.
    Stolen {
        /// Percent of the worst CPU's time.
        pct: f64,
        /// The same of the baseline.
        baseline_pct: f64,
    },
    /// Other processes ran.
    Others {
        /// How many CPUs' worth of time they used.
        cpus: f64,
        /// The same of the baseline.
        baseline_cpus: f64,
    },
    /// Timers were late, and nobody of ours was in the way.
    Late {
        /// 99th percentile.
        p99_us: f64,
        /// The same of the baseline.
        baseline_p99_us: f64,
    },
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stolen { pct, baseline_pct } => {
                write!(
                    f,
                    "the hypervisor stole {pct:.1} % of a CPU (baseline {baseline_pct:.1} %)"
                )
            }
            Self::Others { cpus, baseline_cpus } => {
                write!(f, "other processes used {cpus:.2} CPUs (baseline {baseline_cpus:.2})")
            }
            Self::Late {
                p99_us,
                baseline_p99_us,
            } => {
                write!(
                    f,
                    "timers were late by {p99_us:.0} us at p99 (baseline {baseline_p99_us:.0} us)"
                )
            }
        }
    }
}

/// What disturbed the `cell`; nothing if it was as quiet as the `baseline`. What either does not know is not judged.
pub fn disturbances(baseline: &NoiseReport, cell: &NoiseReport) -> Vec<Disturbance> {
    let uncertain = ticks_share(baseline) + ticks_share(cell);
    let stolen = both(baseline.steal_worst_cpu_pct, cell.steal_worst_cpu_pct)
        .filter(|(before, now)| now - before > STEAL_PCT + 100.0 * uncertain)
        .map(|(baseline_pct, pct)| Disturbance::Stolen { pct, baseline_pct });
    let others = both(baseline.others_cpus, cell.others_cpus)
        .filter(|(before, now)| now - before > OTHERS_CPUS + uncertain)
        .map(|(baseline_cpus, cpus)| Disturbance::Others { cpus, baseline_cpus });
    let late = late(baseline, cell);
    [stolen, others, late].into_iter().flatten().collect()
}

fn late(baseline: &NoiseReport, cell: &NoiseReport) -> Option<Disturbance> {
    let (before, now) = (baseline.timer_late_p99_us, cell.timer_late_p99_us);
    let judged =
        cell.idle_cpus.is_some_and(|idle| idle >= IDLE_CPUS) && cell.samples.min(baseline.samples) >= LEAST_SAMPLES;
    (judged && now > LATE_FACTOR * before && now - before > LATE_US).then_some(Disturbance::Late {
        p99_us: now,
        baseline_p99_us: before,
    })
}

fn both(baseline: Option<f64>, cell: Option<f64>) -> Option<(f64, f64)> {
    baseline.zip(cell)
}

/// The part of a report's span that two ticks are.
fn ticks_share(report: &NoiseReport) -> f64 {
    if report.span_s > 0.0 {
        TICKS_S / report.span_s
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quiet() -> NoiseReport {
        NoiseReport {
            span_s: 10.0,
            samples: 1000,
            timer_late_p50_us: 60.0,
            timer_late_p99_us: 100.0,
            timer_late_max_us: 900.0,
            steal_pct: Some(0.5),
            steal_worst_cpu_pct: Some(1.0),
            others_cpus: Some(0.05),
            idle_cpus: Some(1.0),
        }
    }

    fn after(change: impl Fn(&mut NoiseReport)) -> Vec<Disturbance> {
        let mut cell = quiet();
        change(&mut cell);
        disturbances(&quiet(), &cell)
    }

    #[test]
    fn as_quiet_as_before_is_undisturbed() {
        assert_eq!(after(|_| ()), []);
    }

    #[test]
    fn stolen_time_beyond_the_baseline_counts() {
        // 2 % and, for 2 x 2 ticks in 10 s, 0.4 % more than the baseline's 1 %.
        assert_eq!(after(|cell| cell.steal_worst_cpu_pct = Some(3.3)), []);
        let found = after(|cell| cell.steal_worst_cpu_pct = Some(3.5));
        assert_eq!(
            found,
            [Disturbance::Stolen {
                pct: 3.5,
                baseline_pct: 1.0
            }]
        );
        assert_eq!(
            found[0].to_string(),
            "the hypervisor stole 3.5 % of a CPU (baseline 1.0 %)"
        );
    }

    #[test]
    fn others_beyond_the_baseline_count() {
        assert_eq!(after(|cell| cell.others_cpus = Some(0.153)), []);
        assert_eq!(
            after(|cell| cell.others_cpus = Some(0.155)),
            [Disturbance::Others {
                cpus: 0.155,
                baseline_cpus: 0.05
            }]
        );
    }

    #[test]
    fn a_short_span_is_given_the_benefit_of_its_ticks() {
        // Two ticks of 0.4 s are 5 %.
        let short = |pct| after(|cell| (cell.span_s, cell.steal_worst_cpu_pct) = (0.4, Some(pct)));
        assert_eq!(short(8.1), []);
        assert_eq!(short(8.3).len(), 1);
        assert_eq!(
            after(|cell| (cell.span_s, cell.steal_worst_cpu_pct) = (0.0, Some(100.0))),
            []
        );
    }

    #[test]
    fn lateness_must_grow_in_proportion_and_by_something_that_matters() {
        let late = |p99| after(|cell| cell.timer_late_p99_us = p99);
        assert_eq!(late(600.0), []);
        assert_eq!(
            late(601.0),
            [Disturbance::Late {
                p99_us: 601.0,
                baseline_p99_us: 100.0
            }]
        );
        let mut slow = quiet();
        slow.timer_late_p99_us = 1000.0;
        let mut cell = slow.clone();
        cell.timer_late_p99_us = 4000.0;
        assert_eq!(disturbances(&slow, &cell), []);
        cell.timer_late_p99_us = 4001.0;
        assert_eq!(disturbances(&slow, &cell).len(), 1);
    }

    #[test]
    fn lateness_is_not_judged_where_vcpus_fill_the_machine_or_samples_are_few() {
        let late = |idle, samples| {
            after(|cell| (cell.timer_late_p99_us, cell.idle_cpus, cell.samples) = (5000.0, idle, samples)).len()
        };
        assert_eq!(late(Some(0.5), 100), 1);
        assert_eq!(late(Some(0.49), 100), 0);
        assert_eq!(late(Some(0.5), 99), 0);
        assert_eq!(late(None, 1000), 0);
    }

    #[test]
    fn what_is_unknown_is_not_judged() {
        assert_eq!(
            after(|cell| (cell.steal_worst_cpu_pct, cell.others_cpus) = (None, None)),
            []
        );
        let mut baseline = quiet();
        (baseline.steal_worst_cpu_pct, baseline.others_cpus) = (None, None);
        let mut cell = quiet();
        (cell.steal_worst_cpu_pct, cell.others_cpus) = (Some(90.0), Some(2.0));
        assert_eq!(disturbances(&baseline, &cell), []);
    }

    proptest! {
        /// A report never disturbs itself, and a noisier cell is never found quieter.
        #[test]
        fn more_noise_never_means_less_disturbance(
            steal in 0.0..100.0f64, others in 0.0..2.0f64, p99 in 1.0..1e5f64, more in 0.0..100.0f64,
        ) {
            let mut cell = quiet();
            (cell.steal_worst_cpu_pct, cell.others_cpus, cell.timer_late_p99_us) = (Some(steal), Some(others), p99);
            prop_assert_eq!(disturbances(&cell, &cell), vec![]);
            let mut noisier = cell.clone();
            (noisier.steal_worst_cpu_pct, noisier.others_cpus, noisier.timer_late_p99_us) =
                (Some(steal + more), Some(others + more), p99 + more);
            prop_assert!(disturbances(&quiet(), &noisier).len() >= disturbances(&quiet(), &cell).len());
        }
    }
}
