//! By which rules a rate settles, and what of a limiter they follow from.

use std::time::Duration;

use dirtyrig_limiter::units::Pages;

/// What counts as settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// From one window to the next; half of what a window covers.
    pub window_s: f64,
    /// The fewest values that a steady part has.
    pub min_values: usize,
    /// Standard deviation, as a share of the mean, above which a rate swings.
    pub swing_pct: f64,
}

impl Rules {
    /// For laws that act all the time: far longer than a pause of theirs, short enough to see them settle.
    const WITHOUT_PERIOD: Duration = Duration::from_millis(250);
    /// With 8 values t(0.975) is 2.4, near its limit of 2.0: more gain little.
    const MIN_VALUES: usize = 8;
    /// Three times the deviation of the published readings (10 % at a limit of 500), and above what whole rings that
    /// come evenly leave under a window (7 %).
    const SWING_PCT: f64 = 30.0;

    /// The rules for a limiter that corrects once a `period`; `None`: all the time.
    pub fn new(period: Option<Duration>) -> Self {
        Self {
            window_s: period.unwrap_or(Self::WITHOUT_PERIOD).as_secs_f64(),
            min_values: Self::MIN_VALUES,
            swing_pct: Self::SWING_PCT,
        }
    }

    /// The same with windows that are no shorter than `cycle`, in which a rate rises and falls by itself: under a window as
    /// long nothing of that is left.
    #[must_use]
    pub fn covering(self, cycle: Option<Duration>) -> Self {
        Self {
            window_s: self.window_s.max(cycle.unwrap_or_default().as_secs_f64()),
            ..self
        }
    }
}

/// What of a limiter bounds the rates that it can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LawFacts {
    /// How often it corrects; `None` if it acts all the time.
    pub period: Option<Duration>,
    /// Whether a vCPU can only be stopped when its ring is full, and rings are emptied once a period.
    pub whole_rings: bool,
    /// Whether a vCPU writes whole rings at full speed and then pauses for as long as the quota allows for a ring.
    pub ring_cycles: bool,
    /// What its longest sleep leaves of the unlimited rate: 0.01 for the QEMU laws.
    pub cap_share: Option<f64>,
    /// The distance from the quota at which it no longer corrects, MiB/s: 25 for the QEMU laws.
    pub tolerance_mib_s: Option<f64>,
}

impl LawFacts {
    /// By which rules a rate under this law settles at a quota: its windows cover what rises and falls by itself, a cycle of
    /// the guest's, or of a ring that is filled and paused for.
    pub fn rules(&self, quota_mib_s: Option<f64>, ring_entries: Option<u32>, guest_cycle: Option<Duration>) -> Rules {
        let ring_cycle = || {
            let ring = Pages(u64::from(ring_entries?)).to_mib();
            Duration::try_from_secs_f64(ring / quota_mib_s?).ok()
        };
        Rules::new(self.period)
            .covering(guest_cycle)
            .covering(ring_cycle().filter(|_| self.ring_cycles))
    }
}
