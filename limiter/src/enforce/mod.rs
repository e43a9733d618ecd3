//! Enforcements: what makes a law happen on KVM, between two runs of a vCPU.
//!
//! | enforcement | reaps at | sleeps | for |
//! |---|---|---|---|
//! | `ring_full` | a full ring | the throttle that the governor last set, or one computed there | the QEMU laws, `ring-sleep`, `none` |
//! | `deadline` | every exit, a timer makes one in time; resets less often | off its debt | `budget`, `dirty-quota` |
//! | `page_budget` | every exit; a signal on the exact page, a timer in long runs | off its debt | `budget-ebpf` |
//! | `ballast` | a full ring, kept as small as the grant | off its debt | `ballast` |
//! | `run_slice` | a full ring | a share of the time, dirty or not | `auto-converge` |

use std::{sync::Arc, time::Duration};

use crate::{
    Error, LimiterSpec,
    exit::Exit,
    law::{
        Enforced, Law,
        periodic::{Policy, RingFullReap, SleepEnd, Threads},
    },
    shared::Shared,
};

mod account;
mod alarm;
mod ballast;
mod deadline;
pub(crate) mod page_budget;
mod ring_full;
mod run_slice;

pub(crate) use account::Common;
use page_budget::PageCounter;

/// The sleep that a vCPU is to take before it enters the guest again; none if `asked` is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How long.
    pub(crate) asked: Duration,
    /// What ends it before its time.
    pub(crate) end: SleepEnd,
}

impl Pause {
    /// No pause at all.
    pub(crate) const NONE: Self = Self {
        asked: Duration::ZERO,
        end: SleepEnd::KickEndsIt,
    };

    /// One that nothing but a command ends before its time.
    pub(crate) const fn to_its_end(asked: Duration) -> Self {
        Self {
            asked,
            end: SleepEnd::RunsOut,
        }
    }
}

/// What happens around each run of one vCPU, on its thread.
///
/// Made on the thread that runs the vCPU, and stays there.
pub(crate) trait Enforcement {
    /// The vCPU would enter the guest at `now`: lets it, or asks for a pause after which it is asked again.
    fn before_entry(&mut self, now: Duration) -> Result<Pause, Error>;

    /// The vCPU left the guest at `left`, for the reason `exit`: reaps what must be reaped.
    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<(), Error>;
}

/// How many of a ring's newest entries an enforcement holds back that often interrupts its vCPU.
///
/// An exit may come after a page was logged and before it is written. Were its entry reset with the others, the write
/// would fault and be logged a second time, and the ring would say more than the guest wrote. Held back until the next
/// reap, the page stays writable, and both agree.
pub(crate) const IN_FLIGHT: u64 = 1;

/// How rings are reaped under a law that computes its sleeps: as in QEMU under a limit, but that nothing except a command
/// ends a sleep.
const COMPUTED: Policy = Policy {
    threads: Threads::Merged,
    ring_full_reap: RingFullReap::OwnRing,
    reaper_beside: false,
    sleep_end: SleepEnd::RunsOut,
};

/// How rings are reaped where no limiter does it: as in QEMU without a limit.
const UNLIMITED: Policy = Policy {
    threads: Threads::Merged,
    ring_full_reap: RingFullReap::AllRings,
    reaper_beside: true,
    sleep_end: SleepEnd::KickEndsIt,
};

fn policy(limiter: LimiterSpec) -> Policy {
    match limiter.kind.descriptor().law {
        // The size of the ring matters to the law, not to how its threads behave.
        Law::Periodic(make) => make(0).policy(),
        Law::FullRing(_) => COMPUTED,
        _ => UNLIMITED,
    }
}

/// Whether the background reaper works beside a limit.
pub(crate) fn reaper_beside(limiter: LimiterSpec) -> bool {
    policy(limiter).reaper_beside
}

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
            Box::new(ring_full::RingFullSleep::new(shared, vcpu, policy(limiter), computed))
        }
    })
}
