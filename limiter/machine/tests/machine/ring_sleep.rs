//! The sleep after a full ring, computed: it holds its quota although it acts at full rings alone.

use std::time::Duration;

use dirtyrig_limiter::{law::LimiterKind, limit::Which, units::PAGES_PER_MIB};
use libtest_mimic::Failed;

use crate::{eventually, quota, speed::Speed, support::Small, written};

/// Full rings over which the rate is taken.
const RINGS: u64 = 12;

/// From one full ring to another, as many pages come out as the quota allows for the time, on a quota that a law with a period
/// can't hold: a ring and a half per period of it.
pub(crate) fn it_holds_below_the_floor() -> Result<(), Failed> {
    let mut small = Small::new(1024, LimiterKind::RingSleep);
    // QEMU's law would need a full ring in each.
    small.period = Duration::from_secs(2);
    let machine = small.build(None);
    let limit = Speed::measure()?.share(0.1);
    // Never so slow that the trial takes long: a ring of 960 pages fills 4 times per second at 15 MiB/s.
    let limit = quota(limit.mib_per_sec().max(4.0));
    machine.limit().set(Which::All, limit)?;
    machine.plug(0);
    let full = |rings: u64| {
        let seen = machine.stats(0).ring_full_exits;
        eventually("full rings", || machine.stats(0).ring_full_exits >= seen + rings);
        (machine.now(), written(&machine, 0))
    };
    // The first starts the clock.
    let (begin, before) = full(2);
    let (end, after) = full(RINGS);
    let (pages, span) = ((after - before) as f64, end.saturating_sub(begin).as_secs_f64());
    let rate = pages / PAGES_PER_MIB as f64 / span;
    // Looked at every few milliseconds, either end may be off by what is left of a ring's pages.
    let slack = 1024.0 / pages + 0.02;
    let off = rate / limit.mib_per_sec() - 1.0;
    assert!(
        off.abs() <= slack,
        "{rate:.2} MiB/s under a quota of {:.2}, {:.1} % off",
        limit.mib_per_sec(),
        100.0 * off
    );
    assert!(machine.stats(0).slept > Duration::ZERO);
    machine.stop()?;
    Ok(())
}
