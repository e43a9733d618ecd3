//! Listens to the machine while a cell runs: were its figures disturbed by something that is not ours?

use serde_json::{Map, Value};

use crate::{
    machine::noise::{
        NoiseReport, Pace, Sampler,
        disturbance::{Disturbance, disturbances},
    },
    model::Summary,
};

/// What the machine did during a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// How late it woke a sleeper, 99th percentile.
    pub timer_late_p99_us: Option<f64>,
    /// Share of the worst CPU's time that the hypervisor took.
    pub steal_pct: Option<f64>,
    /// What was not there before the sweep.
    pub disturbances: Vec<Disturbance>,
}

impl Heard {
    /// The disturbances in words; empty where there was none.
    pub fn reason(&self) -> String {
        let words: Vec<String> = self.disturbances.iter().map(ToString::to_string).collect();
        words.join("; ")
    }

    /// Puts it into the rows of the cell.
    pub fn write(&self, rows: &mut [Summary]) {
        for row in rows {
            row.timer_late_p99_us = self.timer_late_p99_us;
            row.steal_pct = self.steal_pct;
            row.disturbed = self.reason();
        }
    }
}

/// Who listens.
pub trait Listener {
    /// A cell begins.
    fn begin(&mut self);
    /// It is over.
    fn end(&mut self) -> Heard;
}

/// Compares the machine with itself before the sweep. Where nothing is known of that, nothing is measured: a lateness
/// without a baseline says nothing of the cell.
#[derive(Debug)]
pub struct Machine {
    baseline: Option<NoiseReport>,
    sampler: Option<Sampler>,
}

impl Machine {
    /// With the baseline that is among the `facts` of the manifest.
    pub fn of(facts: &Map<String, Value>) -> Self {
        let baseline = facts
            .get("noise")
            .and_then(|noise| serde_json::from_value(noise.clone()).ok());
        Self {
            baseline,
            sampler: None,
        }
    }
}

impl Listener for Machine {
    fn begin(&mut self) {
        // Where no thread can be started, the cell is worth more than what is known of its quiet.
        self.sampler = self.baseline.as_ref().and_then(|_| Sampler::start(Pace::Sparse).ok());
    }

    fn end(&mut self) -> Heard {
        let Some((baseline, sampler)) = self.baseline.as_ref().zip(self.sampler.take()) else {
            return Heard::default();
        };
        let report = sampler.finish();
        Heard {
            timer_late_p99_us: Some(report.timer_late_p99_us),
            steal_pct: report.steal_worst_cpu_pct,
            disturbances: disturbances(baseline, &report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_in_every_row_of_the_cell() {
        let heard = Heard {
            timer_late_p99_us: Some(90.0),
            steal_pct: Some(12.0),
            disturbances: vec![
                Disturbance::Stolen {
                    pct: 12.0,
                    baseline_pct: 0.0,
                },
                Disturbance::Others {
                    cpus: 0.5,
                    baseline_cpus: 0.01,
                },
            ],
        };
        let mut rows = [Summary::default(), Summary::default()];
        heard.write(&mut rows);
        assert!(rows.iter().all(|row| row.steal_pct == Some(12.0)));
        assert_eq!(
            rows[1].disturbed,
            "the hypervisor stole 12.0 % of a CPU (baseline 0.0 %); other processes used 0.50 CPUs (baseline 0.01)"
        );
    }

    #[test]
    fn without_a_baseline_nothing_is_said() {
        let mut machine = Machine::of(&Map::new());
        machine.begin();
        assert_eq!(machine.end(), Heard::default());
    }
}
