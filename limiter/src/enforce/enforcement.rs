//! What an enforcement is: it is asked before each entry of its vCPU into the guest, and told of each exit.

use std::time::Duration;

use crate::{Error, exit::Exit, law::periodic::SleepEnd};

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
