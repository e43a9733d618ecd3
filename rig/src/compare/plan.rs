//! What a comparison runs: each limiter once a repetition, in an order of its own, so that a machine that slowly changes
//! favours none.

use std::time::Duration;

use dirtyrig_limiter::law::LimiterKind;

use crate::{
    scenario::{End, Scenario, ScenarioError, settings::Settings, values::Span},
    sweep::plan::Plan,
};

/// What is compared when nothing is said: what exists, and what holds a quota on any ring.
const LIMITERS: [LimiterKind; 4] = [
    LimiterKind::Qemu72,
    LimiterKind::Qemu10,
    LimiterKind::AutoConverge,
    LimiterKind::Budget,
];

/// From unlimited and from high, down to low, and up again: the four ways that a limit changes.
const SCRIPT: &str =
    "ring = 65536\nquota = 500\nduration = '16s'\nat = ['4s set 100 all', '8s set 25 all', '12s set 300 all']";

/// The plan of a comparison under `settings`, of which only the limiters may be several. Without a quota and a script
/// those of the default comparison are taken.
pub fn plan(settings: &Settings, seed: u64) -> Result<Plan, ScenarioError> {
    let mut settings = settings.clone();
    if settings.quota.is_empty() && settings.vm_quota.is_none() && settings.at.is_empty() {
        settings = settings.or(toml::from_str(SCRIPT).expect("the default script is valid"));
    }
    if settings.limiter.is_empty() {
        settings.limiter = LIMITERS.to_vec();
    }
    let each = settings.limiter.iter().map(|&limiter| Settings {
        limiter: vec![limiter],
        ..settings.clone()
    });
    let each = each.map(|mut one| {
        // All last as long as any, also the baseline, which has no script.
        one.duration = Some(Span(duration(&settings)?));
        if one.limiter == [LimiterKind::None] {
            (one.vm_quota, one.at) = (None, Vec::new());
        }
        Ok(one)
    });
    let each = each.collect::<Result<_, ScenarioError>>()?;
    let mut plan = Plan::of(each, settings.repetitions, seed, Vec::new())?;
    for cell in &mut plan.cells {
        cell.to_the_end = true;
    }
    Ok(plan)
}

fn duration(settings: &Settings) -> Result<Duration, ScenarioError> {
    let one = Settings {
        // Any that can do everything.
        limiter: vec![LimiterKind::Budget],
        ..settings.clone()
    };
    Ok(Scenario::new(&one, 0, End::AtDuration)?.duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str) -> Result<Plan, ScenarioError> {
        plan(&toml::from_str(text).expect("valid settings"), 7)
    }

    #[test]
    fn every_limiter_runs_the_same_to_the_end_once_a_repetition() {
        let plan =
            planned("limiter = ['none', 'qemu-10', 'budget']\nquota = 100\nat = ['2s set 50 all']\nrepetitions = 2")
                .expect("a plan");
        assert_eq!(plan.cells.len(), 6);
        for cell in &plan.cells {
            let scenario = cell.scenario().expect("a scenario");
            assert_eq!(scenario.duration, Duration::from_secs(20), "as long as a run");
            assert_eq!(scenario.end, End::AtDuration);
            assert_eq!(scenario.is_limited(), scenario.vm.limiter.kind != LimiterKind::None);
        }
        let limiters = |repetition| {
            let cells = plan.cells.iter().filter(move |cell| cell.repetition == repetition);
            let mut names: Vec<String> = cells.map(|cell| cell.settings.limiter[0].to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(limiters(0), ["budget", "none", "qemu-10"]);
        assert_eq!(limiters(1), limiters(0));
    }

    #[test]
    fn without_a_quota_the_four_ways_of_a_change_are_compared() {
        let plan = planned("limiter = 'budget'\nvcpus = 2").expect("a plan");
        let scenario = plan.cells[0].scenario().expect("a scenario");
        assert_eq!(
            (scenario.script.len(), scenario.vm.ring.entries(), scenario.vm.vcpus),
            (3, 65536, 2)
        );
        let own = planned("limiter = 'budget'\nquota = 5").expect("a plan");
        assert!(own.cells[0].scenario().expect("a scenario").script.is_empty());
    }

    #[test]
    fn several_rings_are_no_comparison() {
        assert!(matches!(
            planned("ring = [1024, 4096]"),
            Err(ScenarioError::Several { .. })
        ));
    }
}
