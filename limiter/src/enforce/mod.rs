//! Enforcements: what makes a law happen on KVM, between two runs of a vCPU.
//!
//! | enforcement | reaps at | sleeps | for |
//! |---|---|---|---|
//! | `ring_full` | a full ring | the throttle that the governor last set, or one computed there | the QEMU laws, `ring-sleep`, `none` |
//! | `deadline` | every exit, a timer makes one in time; resets less often | off its debt | `budget`, `dirty-quota` |
//! | `page_budget` | every exit; a signal on the exact page, a timer in long runs | off its debt | `budget-ebpf` |
//! | `ballast` | a full ring, kept as small as the grant | off its debt | `ballast` |
//! | `run_slice` | a full ring | a share of the time, dirty or not | `auto-converge` |

use std::sync::Arc;

use crate::{
    Error, LimiterSpec,
    law::{Enforced, Law},
    shared::Shared,
};

mod account;
mod alarm;
mod ballast;
mod deadline;
mod enforcement;
pub(crate) mod page_budget;
mod ring_full;
mod run_slice;

pub(crate) use enforcement::Enforcement;
use page_budget::PageCounter;

/// The enforcement of `limiter` for one vCPU, whose pages `counter` counts if it is one that needs that.
pub(crate) fn build(
    limiter: LimiterSpec,
    shared: &Arc<Shared>,
    vcpu: usize,
    ring_entries: u32,
    counter: Option<Box<dyn PageCounter>>,
) -> Result<Box<dyn Enforcement>, Error> {
    let shared = Arc::clone(shared);
    let descriptor = limiter.kind.descriptor();
    Ok(match descriptor.enforced {
        Enforced::ByDeadline => Box::new(deadline::Deadline::new(shared, vcpu, ring_entries)),
        Enforced::ByPageCounter => {
            let counter = counter.ok_or(Error::NoPageCounter { limiter: limiter.kind })?;
            Box::new(page_budget::PageBudget::new(shared, vcpu, counter))
        }
        Enforced::ByHeldEntries => Box::new(ballast::Ballast::new(shared, vcpu, ring_entries)),
        Enforced::ByRunSlice => Box::new(run_slice::RunSlice::new(shared, vcpu)),
        Enforced::AtFullRing => {
            let computed = match descriptor.law {
                Law::FullRing(make) => Some(make()),
                _ => None,
            };
            Box::new(ring_full::RingFullSleep::new(shared, vcpu, descriptor.policy, computed))
        }
    })
}
