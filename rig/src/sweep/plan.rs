//! Which cells a sweep has, and in which order they run.

use std::{collections::BTreeSet, time::Duration};

use dirtyrig_limiter::law::LimiterKind;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use crate::scenario::{
    End, Scenario, ScenarioError,
    per_vcpu::{MaybeQuota, PerVcpu},
    probe_mode::ProbeMode,
    settings::{Repetitions, Settings},
};

/// The cells of a sweep. It is kept whole in the manifest, so that an interrupted sweep goes on as it was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of the order, and through it of the guests' choices.
    pub seed: u64,
    /// What the reader should know about the choice of cells.
    pub remarks: Vec<String>,
    /// How often a cell that was disturbed is run again.
    #[serde(default)]
    pub repeat_disturbed: u32,
    /// The cells in the order in which they run.
    pub cells: Vec<PlannedCell>,
}

/// One cell of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// Its number in the recording.
    pub cell: u32,
    /// Which repetition of the same settings it is, from 0.
    pub repetition: u32,
    /// Its settings, a single value each.
    pub settings: Settings,
    /// Whether it follows its script to the end, finely sampled, rather than end when it has been measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_the_end: bool,
}

/// Time between the samples of a cell that follows its script: a settle time of a tenth of a second is ten of them.
const FINE: Duration = Duration::from_millis(10);

impl PlannedCell {
    /// What it does.
    pub fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let seed = self.settings.seed.unwrap_or_default();
        if self.to_the_end {
            let scenario = Scenario::new(&self.settings, seed, End::AtDuration)?;
            Ok(Scenario {
                sample_every: FINE,
                ..scenario
            })
        } else {
            Scenario::new(&self.settings, seed, End::WhenMeasured)
        }
    }

    /// In words, for a line of progress.
    pub fn title(&self) -> String {
        fn words<T: ToString>(values: &[T]) -> String {
            values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
        }
        let Settings {
            limiter,
            ring,
            period,
            quota,
            guest,
            vcpus,
            vmm,
            ..
        } = &self.settings;
        let mut title = format!(
            "{}, ring {}, period {}, quota {}",
            words(limiter),
            words(ring),
            words(period),
            words(quota)
        );
        for (name, value, usual) in [
            ("guest", words(guest), "sequential"),
            ("vcpus", words(vcpus), "1"),
            ("vmm", words(vmm), "rig"),
        ] {
            if value != usual {
                title.extend([", ", name, " ", value.as_str()]);
            }
        }
        title
    }
}

impl Plan {
    /// Itself with no other cells than these.
    #[must_use]
    pub fn only(mut self, cells: &BTreeSet<u32>) -> Self {
        self.cells.retain(|cell| cells.contains(&cell.cell));
        self
    }

    /// Every combination of the settings' lists.
    pub fn matrix(settings: &Settings, seed: u64) -> Result<Self, ScenarioError> {
        Self::of(settings.combinations(), settings.repetitions, seed, Vec::new())
    }

    /// The given settings, each a single value a dimension, each as often as asked. One repetition comes after the
    /// other, each in an order of its own, so that a machine that slowly changes does not favour one cell.
    pub fn of(
        combinations: Vec<Settings>,
        repetitions: Option<Repetitions>,
        seed: u64,
        remarks: Vec<String>,
    ) -> Result<Self, ScenarioError> {
        let mut unique: Vec<Settings> = Vec::with_capacity(combinations.len());
        for mut settings in combinations {
            if settings.limiter == [LimiterKind::None] {
                // Without a limiter all quotas are the same cell: the baseline of the others.
                settings.quota = vec![PerVcpu::all(MaybeQuota(None))];
            }
            // Spelt out, so that an interrupted sweep goes on with the defaults that it was begun with; and checked
            // here, because an error of the last cell should not come up after an hour.
            let settings = Scenario::new(&settings, seed, End::WhenMeasured)?.settings();
            if !unique.contains(&settings) {
                unique.push(settings);
            }
        }
        let mut random = StdRng::seed_from_u64(seed);
        let mut cells = Vec::new();
        let mut number = 0_u32;
        for repetition in 0..repetitions.map_or(1, Repetitions::get) as u32 {
            let first = cells.len();
            for settings in &unique {
                // Each cell draws its own random pages, the same ones each time that it is run.
                let settings = Settings {
                    seed: Some(seed.wrapping_add(number.into())),
                    ..settings.clone()
                };
                cells.push(PlannedCell {
                    cell: number,
                    repetition,
                    settings,
                    to_the_end: false,
                });
                number += 1;
            }
            cells[first..].shuffle(&mut random);
        }
        Ok(Self {
            seed,
            remarks,
            repeat_disturbed: 0,
            cells,
        })
    }

    /// Whether the probes watch its cells: all of them or none, so that they compare.
    pub fn probes(&self) -> ProbeMode {
        self.cells
            .iter()
            .find_map(|cell| cell.settings.probes)
            .unwrap_or_default()
    }

    /// The same plan with the probes in another mode.
    #[must_use]
    pub fn with_probes(mut self, mode: ProbeMode) -> Self {
        for cell in &mut self.cells {
            cell.settings.probes = Some(mode);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(text: &str, seed: u64) -> Plan {
        Plan::matrix(&toml::from_str(text).expect("valid settings"), seed).expect("valid cells")
    }

    fn numbers(plan: &Plan) -> Vec<u32> {
        plan.cells.iter().map(|cell| cell.cell).collect()
    }

    #[test]
    fn every_combination_is_repeated_and_numbered_once() {
        let plan = matrix("ring = [4096, 65536]\nquota = [25, 500]\nrepetitions = 3", 1);
        let mut all = numbers(&plan);
        for (repetition, block) in (0..).zip(plan.cells.chunks(4)) {
            assert!(block.iter().all(|cell| cell.repetition == repetition));
        }
        all.sort_unstable();
        assert_eq!(all, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_is_the_seeds() {
        let text = "ring = [1024, 2048, 4096, 8192]\nquota = [1, 2, 3, 4, 5]";
        assert_eq!(matrix(text, 1), matrix(text, 1));
        assert_ne!(numbers(&matrix(text, 1)), numbers(&matrix(text, 2)));
    }

    #[test]
    fn without_a_limiter_there_is_one_cell_for_all_quotas() {
        let plan = matrix("limiter = ['none', 'qemu-10']\nquota = [25, 500]", 1);
        assert_eq!(plan.cells.len(), 3);
    }

    #[test]
    fn a_plan_survives_the_manifest() {
        let plan = matrix(
            "ring = [4096]\nquota = ['25+none']\nvcpus = 2\nguest = 'burst:64/20ms+reader'",
            9,
        );
        let value = serde_json::to_value(&plan).expect("a plan is JSON");
        assert_eq!(serde_json::from_value::<Plan>(value).expect("the same plan"), plan);
    }

    #[test]
    fn one_bad_cell_refuses_the_plan() {
        let settings = toml::from_str("vcpus = [2, 1]\nquota = '1+2'").expect("valid settings");
        assert!(matches!(
            Plan::matrix(&settings, 1),
            Err(ScenarioError::TooManyValues { .. })
        ));
    }
}
