use std::{cell::RefCell, time::Duration};

use super::*;
use crate::{
    engine::simulated::{SimulatedClock, SimulatedTarget},
    machine::noise::disturbance::Disturbance,
    model::{Sample, Verdict},
    recording::{Manifest, Recording, State},
    scenario::{script::Event, settings::Settings},
};

#[derive(Default)]
struct Seen {
    began: Vec<u32>,
    finished: Vec<u32>,
}

impl Watch for Seen {
    fn sampled(&mut self, _: &[Sample]) {}

    fn changed(&mut self, _: Event) {}
}

impl SweepWatch for Seen {
    fn began(&mut self, cell: &PlannedCell, _: &Scenario) {
        self.began.push(cell.cell);
    }

    fn finished(&mut self, cell: &PlannedCell, _: &[Summary]) {
        self.finished.push(cell.cell);
    }
}

fn plan() -> Plan {
    let settings: Settings =
        toml::from_str("ring = [4096, 65536]\nquota = [25, 100, 300]\nvcpus = 2\nguest = 'sequential+random'")
            .expect("valid settings");
    Plan::matrix(&settings, 5).expect("valid cells")
}

fn record(plan: &Plan, dir: &std::path::Path) -> Recorder {
    let cells = plan.cells.iter().map(|cell| cell.cell);
    let scenario = serde_json::to_value(plan).expect("a plan is JSON");
    Recorder::create(dir, Manifest::new(plan.seed, cells, serde_json::Map::new(), scenario)).expect("a new folder")
}

fn run(plan: &Plan, recorder: &mut Recorder, clock: &SimulatedClock) -> (anyhow::Result<()>, Seen) {
    let mut seen = Seen::default();
    let build = |spec: &VmSpec| -> anyhow::Result<Box<dyn Target>> {
        let floor = crate::scenario::spec::predicted_floor_mib_s(spec.ring, spec.limiter.period);
        Ok(Box::new(SimulatedTarget::new(clock, spec.vcpus, 1000.0, floor)))
    };
    (execute(plan, recorder, &build, &mut seen, clock), seen)
}

#[test]
fn every_cell_is_run_in_order_and_summed_up_a_row_a_vcpu() {
    let (dir, plan) = (tempfile::tempdir().expect("a folder"), plan());
    let mut recorder = record(&plan, dir.path());
    let (outcome, seen) = run(&plan, &mut recorder, &SimulatedClock::default());
    outcome.expect("it runs");
    let order: Vec<u32> = plan.cells.iter().map(|cell| cell.cell).collect();
    assert_eq!((&seen.began, &seen.finished), (&order, &order));
    assert_eq!(recorder.finish().expect("it ends"), State::Complete);

    let recording = Recording::open(dir.path()).expect("a recording");
    assert_eq!(recording.summaries.len(), 12);
    for row in &recording.summaries {
        let held = row.quota_mib_s >= row.predicted_floor_mib_s;
        assert_eq!(
            row.verdict,
            if held { Verdict::Held } else { Verdict::FloorBound },
            "{row:?}"
        );
        assert_eq!(row.guest.as_deref(), Some(["sequential", "random"][row.vcpu as usize]));
    }
}

#[test]
fn an_interrupted_sweep_keeps_what_is_finished_and_goes_on_with_the_rest() {
    let (dir, plan) = (tempfile::tempdir().expect("a folder"), plan());
    let mut recorder = record(&plan, dir.path());
    let (outcome, first) = run(
        &plan,
        &mut recorder,
        &SimulatedClock::interrupted_at(Duration::from_secs(40)),
    );
    let error = outcome.expect_err("interrupted");
    assert!(
        error.is::<Interrupted>() && error.to_string().contains("was not finished"),
        "{error}"
    );
    assert!(!first.finished.is_empty() && first.finished.len() < plan.cells.len());
    assert_eq!(recorder.finish().expect("it ends"), State::Interrupted);

    let mut recorder = Recorder::resume(dir.path()).expect("it can be continued");
    let resumed: Plan = serde_json::from_value(recorder.manifest().scenario.clone()).expect("the plan");
    assert_eq!(resumed, plan);
    let (outcome, second) = run(&resumed, &mut recorder, &SimulatedClock::default());
    outcome.expect("it runs");
    let order: Vec<u32> = plan.cells.iter().map(|cell| cell.cell).collect();
    assert_eq!(
        [first.finished, second.finished].concat(),
        order,
        "each once, none twice"
    );
    assert_eq!(recorder.finish().expect("it ends"), State::Complete);
    let recording = Recording::open(dir.path()).expect("a recording");
    assert!(
        recording.unfinished.is_empty(),
        "nothing is left of the cell that was interrupted"
    );
}

#[test]
fn a_guest_that_can_not_be_started_names_the_cell() {
    let (dir, plan) = (tempfile::tempdir().expect("a folder"), plan());
    let mut recorder = record(&plan, dir.path());
    let tries = RefCell::new(0);
    let build = |_: &VmSpec| -> anyhow::Result<Box<dyn Target>> {
        *tries.borrow_mut() += 1;
        anyhow::bail!("no room")
    };
    let error = execute(
        &plan,
        &mut recorder,
        &build,
        &mut Seen::default(),
        &SimulatedClock::default(),
    )
    .expect_err("no VM");
    assert_eq!(*tries.borrow(), 1, "it does not go on to the next cell");
    assert!(
        error.to_string().contains(&format!("cell {}", plan.cells[0].cell)),
        "{error}"
    );
    assert!(
        format!("{error:#}").ends_with("can't start the guest: no room"),
        "{error:#}"
    );
}

/// Hears a disturbance at its first `times` cells.
struct Disturbed {
    times: u32,
    heard: u32,
}

impl Listener for Disturbed {
    fn begin(&mut self) {}

    fn end(&mut self) -> listen::Heard {
        self.heard += 1;
        listen::Heard {
            timer_late_p99_us: Some(100.0),
            disturbances: (self.heard <= self.times)
                .then_some(Disturbance::Others {
                    cpus: 1.0,
                    baseline_cpus: 0.0,
                })
                .into_iter()
                .collect(),
            ..listen::Heard::default()
        }
    }
}

/// The rows of a sweep of six cells that is disturbed at first, and in which order its cells began.
fn disturbed_sweep(times: u32, repeat_disturbed: u32) -> (Recording, Vec<u32>) {
    let dir = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        repeat_disturbed,
        ..plan()
    };
    let (mut recorder, clock) = (record(&plan, dir.path()), SimulatedClock::default());
    let build = |spec: &VmSpec| -> anyhow::Result<Box<dyn Target>> {
        Ok(Box::new(SimulatedTarget::new(&clock, spec.vcpus, 1000.0, 16.0)))
    };
    let mut seen = Seen::default();
    let mut listener = Disturbed { times, heard: 0 };
    listened(&plan, &mut recorder, &build, &mut seen, &clock, &mut listener).expect("it runs");
    recorder.finish().expect("it ends");
    (Recording::open(dir.path()).expect("a recording"), seen.began)
}

#[test]
fn a_disturbed_cell_is_marked_and_run_again_only_where_that_was_asked_for() {
    let (recording, began) = disturbed_sweep(1, 0);
    assert_eq!(began.len(), 6);
    let marked: Vec<u32> = recording
        .summaries
        .iter()
        .filter(|row| row.disturbed == "other processes used 1.00 CPUs (baseline 0.00)")
        .map(|row| row.cell)
        .collect();
    assert_eq!(marked, [began[0]; 2], "both vCPUs of the first cell");
}

#[test]
fn a_disturbed_cell_that_is_run_again_leaves_nothing_of_its_first_run() {
    let (recording, began) = disturbed_sweep(2, 3);
    assert_eq!(began[..3], [began[0]; 3], "the first cell, until it was undisturbed");
    assert_eq!(began.len(), 8);
    assert!(recording.summaries.iter().all(|row| row.disturbed.is_empty()));
    assert_eq!(recording.summaries.len(), 12);
    let first: Vec<f64> = recording
        .samples
        .iter()
        .filter(|row| row.cell == began[0] && row.vcpu == 0)
        .map(|row| row.t_s)
        .collect();
    assert!(first.is_sorted(), "one run of it: {first:?}");
}

#[test]
fn a_cell_that_stays_disturbed_is_kept_with_its_mark() {
    let (recording, began) = disturbed_sweep(100, 1);
    assert_eq!(began.len(), 12);
    assert!(recording.summaries.iter().all(|row| !row.disturbed.is_empty()));
}
