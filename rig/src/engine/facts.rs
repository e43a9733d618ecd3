//! What is known of a cell before it runs, in the words of the analysis.

use std::{path::Path, time::Duration};

use dirtyrig_guests::Program;
use dirtyrig_limiter::LimiterSpec;

use crate::{
    analysis::CellFacts,
    engine::{spec::VmSpec, target::Target},
    model::{LawFacts, Rules},
    scenario::Scenario,
};

/// The facts of cell `cell`, which runs on `target`.
pub fn facts(cell: u32, repetition: u32, target: &dyn Target, scenario: &Scenario) -> CellFacts {
    let vm = &scenario.vm;
    let is_ours = target.runs_our_guest();
    CellFacts {
        cell,
        repetition,
        vmm: target.vmm().to_owned(),
        limiter: vm.limiter.kind.to_string(),
        guests: if is_ours {
            vm.programs.iter().map(|program| Some(named(program, vm))).collect()
        } else {
            vec![None; vm.vcpus]
        },
        guest_cycle: guest_cycle(vm).filter(|_| is_ours),
        ring_entries: Some(vm.ring.entries()),
        period: vm.limiter.period,
        memory_mib: is_ours.then_some(vm.memory_mib),
        sees_pauses: target.sees_pauses(),
        law: law(vm.limiter),
        measure_from_s: None,
    }
}

/// A program, and which trace it follows: two of them are as unlike as any two guests.
fn named(program: &Program, vm: &VmSpec) -> String {
    let file = vm.replay.as_deref().and_then(Path::file_name);
    match (program, file) {
        (Program::Replay, Some(file)) => format!("{program}:{}", file.to_string_lossy()),
        _ => program.to_string(),
    }
}

/// By which rules a cell settles: of its vCPUs the one that takes longest.
pub fn settling_rules(scenario: &Scenario) -> Rules {
    let vm = &scenario.vm;
    let lowest = scenario.quotas.iter().flatten().chain(&scenario.vm_quota);
    let lowest = lowest.map(|quota| quota.mib_per_sec()).reduce(f64::min);
    law(vm.limiter).rules(lowest, Some(vm.ring.entries()), guest_cycle(vm))
}

/// How long the longest of the programs' cycles takes, of those that have one.
pub fn guest_cycle(vm: &VmSpec) -> Option<Duration> {
    vm.programs.iter().filter_map(Program::cycle).max()
}

/// How much longer a swinging rate is measured than a steady one, because its mean is known less well.
pub const SWINGING: f64 = 2.0;

/// What bounds the rates that a limiter can hold.
pub fn law(limiter: LimiterSpec) -> LawFacts {
    let bounds = limiter.kind.bounds();
    LawFacts {
        period: bounds.is_periodic.then_some(limiter.period),
        whole_rings: bounds.whole_rings,
        ring_cycles: bounds.ring_cycles,
        cap_share: bounds.cap_share,
        tolerance_mib_s: bounds.tolerance_mib_s,
    }
}
