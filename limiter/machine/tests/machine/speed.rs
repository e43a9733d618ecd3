//! How fast this host is. Hosts differ by a factor of ten. So what a trial asks of a limiter, and what it then expects, follows
//! from what a guest does here without a limit, measured in the same trial.

use std::{
    thread,
    time::{Duration, Instant},
};

use dirtyrig_limiter::{
    law::LimiterKind,
    units::{PAGES_PER_MIB, Quota},
};
use libtest_mimic::Failed;

use crate::{quota, support::Small, written};

/// The rate of a vCPU without a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    pages_per_sec: f64,
}

impl Speed {
    /// Measures it, in a machine of its own.
    pub(crate) fn measure() -> Result<Self, Failed> {
        /// Warm-up, or enough for a rate.
        const PAGES: u64 = 4096;
        const AT_LEAST: Duration = Duration::from_millis(250);
        let machine = Small::new(4096, LimiterKind::None).build(None);
        machine.plug(0);
        let run = |at_least| {
            let (begin, before) = (Instant::now(), written(&machine, 0));
            while written(&machine, 0) < before + PAGES || begin.elapsed() < at_least {
                thread::sleep(Duration::from_millis(1));
            }
            (written(&machine, 0) - before) as f64 / begin.elapsed().as_secs_f64()
        };
        run(Duration::ZERO);
        let pages_per_sec = run(AT_LEAST);
        machine.stop()?;
        Ok(Self { pages_per_sec })
    }

    /// A quota of a share of it.
    pub(crate) fn share(self, share: f64) -> Quota {
        quota(self.pages_per_sec / PAGES_PER_MIB as f64 * share)
    }

    /// A quota of so many MiB/s, or a quarter of the speed where that is less: one that holds the guest back on any host.
    pub(crate) fn at_most(self, mib_per_sec: f64) -> Quota {
        let quarter = self.share(0.25);
        quota(mib_per_sec.min(quarter.mib_per_sec()))
    }

    /// Pages that a guest may write before an exit that was asked for: those of ten milliseconds, in which a kick and the first
    /// slice have long ended. On a slow host a guest does in a moment several times its mean; on none as much as on a fast one.
    pub(crate) fn overrun(self) -> f64 {
        const OF_A_FAST_HOST: f64 = 4096.0;
        (4.0 * self.pages_per_sec * 0.010).min(OF_A_FAST_HOST)
    }

    /// How long it takes to write `pages`.
    pub(crate) fn time_for(self, pages: u32) -> Duration {
        Duration::from_secs_f64(f64::from(pages) / self.pages_per_sec)
    }
}
