//! What is known of a cell before it runs, in the words of the analysis.

use dirtyrig_limiter::{LimiterSpec, law::LimiterKind};

use crate::{
    analysis::{CellFacts, LawFacts, Rules},
    engine::target::Target,
    scenario::Scenario,
};

/// Distance from the quota within which QEMU's laws leave the throttle alone, in MiB/s.
pub const QEMU_TOLERANCE_MIB_S: f64 = 25.0;
/// QEMU's laws sleep at most 99 times as long as it takes to fill the ring; auto-converge at most 99 % of the time.
pub const CAP_SHARE: f64 = 0.01;

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
            vm.programs.iter().map(|program| Some(program.to_string())).collect()
        } else {
            vec![None; vm.vcpus]
        },
        ring_entries: Some(vm.ring.entries()),
        period: vm.limiter.period,
        memory_mib: is_ours.then_some(vm.memory_mib),
        sees_pauses: target.sees_pauses(),
        law: law(vm.limiter),
        measure_from_s: None,
    }
}

/// By which rules a cell under this limiter settles.
pub fn settling_rules(limiter: LimiterSpec) -> Rules {
    Rules::new(law(limiter).period)
}

/// How much longer a swinging rate is measured than a steady one, because its mean is known less well.
pub const SWINGING: f64 = 2.0;

/// What bounds the rates that a limiter can hold.
pub fn law(limiter: LimiterSpec) -> LawFacts {
    let period = Some(limiter.period);
    match limiter.kind {
        LimiterKind::QemuV11 | LimiterKind::Qemu72 | LimiterKind::Qemu10 => LawFacts {
            period,
            whole_rings: true,
            cap_share: Some(CAP_SHARE),
            tolerance_mib_s: Some(QEMU_TOLERANCE_MIB_S),
        },
        LimiterKind::AutoConverge => LawFacts {
            period,
            whole_rings: false,
            cap_share: Some(CAP_SHARE),
            tolerance_mib_s: None,
        },
        LimiterKind::DirtyQuota
        | LimiterKind::Budget
        | LimiterKind::BudgetEbpf
        | LimiterKind::Ballast
        | LimiterKind::None => LawFacts {
            period: None,
            whole_rings: false,
            cap_share: None,
            tolerance_mib_s: None,
        },
    }
}
