//! Enforcements: what makes a law happen on KVM, between two runs of a vCPU.
//!
//! | enforcement | reaps at | sleeps | for |
//! |---|---|---|---|
//! | [`ring_full`] | a full ring | the throttle that the governor last set | the QEMU laws, `none` |

use std::{sync::Arc, time::Duration};

use crate::{
    kvm::{Error, vcpu::Exit},
    law::periodic::{Policy, RingFullReap, SleepEnd, Threads},
    machine::LimiterSpec,
    shared::Shared,
};

pub mod ring_full;

/// The sleep that a vCPU is to take before it enters the guest again; none if `asked` is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long.
    pub asked: Duration,
    /// What ends it before its time.
    pub end: SleepEnd,
}

impl Pause {
    /// No pause at all.
    pub const NONE: Self = Self {
        asked: Duration::ZERO,
        end: SleepEnd::KickEndsIt,
    };
}

/// What happens around each run of one vCPU, on its thread.
pub trait Enforcement: Send {
    /// The vCPU is about to enter the guest.
    fn before_entry(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// The vCPU left the guest at `left`, for the reason `exit`: reaps what must be reaped and says how long to sleep.
    fn after_exit(&mut self, exit: Exit, left: Duration) -> Result<Pause, Error>;
}

/// How rings are reaped where no limiter does it: as in QEMU without a limit.
const UNLIMITED: Policy = Policy {
    threads: Threads::Merged,
    ring_full_reap: RingFullReap::AllRings,
    reaper_beside: true,
    sleep_end: SleepEnd::KickEndsIt,
};

fn policy(limiter: LimiterSpec) -> Policy {
    // The size of the ring matters to the law, not to how its threads behave.
    limiter.kind.periodic_law(0).map_or(UNLIMITED, |law| law.policy())
}

/// Whether the background reaper works beside a limit; `None` if the limiter reaps at every exit and needs none.
pub(crate) fn reaper(limiter: LimiterSpec) -> Option<bool> {
    Some(policy(limiter).reaper_beside)
}

/// The enforcement of `limiter` for one vCPU.
pub(crate) fn build(limiter: LimiterSpec, shared: &Arc<Shared>, vcpu: usize) -> Result<Box<dyn Enforcement>, Error> {
    Ok(Box::new(ring_full::RingFullSleep::new(
        Arc::clone(shared),
        vcpu,
        policy(limiter),
    )))
}
