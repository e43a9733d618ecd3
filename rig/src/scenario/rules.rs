//! By which rules a cell settles: they follow from its limiter, its ring and its guests.

use std::time::Duration;

use dirtyrig_guests::Program;
use dirtyrig_limiter::LimiterSpec;

use super::spec::VmSpec;
use crate::model::{LawFacts, Rules};

/// By which rules a cell of `vm` settles whose lowest quota is `lowest_mib_s`.
pub(super) fn settling(vm: &VmSpec, lowest_mib_s: Option<f64>) -> Rules {
    law(vm.limiter).rules(lowest_mib_s, Some(vm.ring.entries()), guest_cycle(vm))
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
