//! What is known of a cell before it runs, in the words of the analysis.

use std::path::Path;

use dirtyrig_guests::Program;

use super::target::Target;
use crate::{
    analysis::CellFacts,
    scenario::{
        Scenario,
        rules::{guest_cycle, law},
        spec::VmSpec,
    },
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
