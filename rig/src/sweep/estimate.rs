//! How long cells will take.

use std::time::Duration;

use dirtyrig_limiter::law::LimiterKind;

use crate::scenario::{End, Scenario, rules::SWINGING, spec::predicted_floor_mib_s};

/// To create a VM, populate its memory and take it down again.
const SET_UP: Duration = Duration::from_millis(700);
/// Windows of the analysis before and after those that are measured: two of transient, and half of the last one, which
/// overlaps the one before it.
const OTHER_WINDOWS: f64 = 3.0;

/// How long something will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// As cells usually go.
    pub typical: Duration,
    /// If no cell settles.
    pub at_most: Duration,
}

impl Estimate {
    /// For one cell.
    pub fn of(scenario: &Scenario) -> Self {
        let before = SET_UP + scenario.warm_up;
        let at_most = before + scenario.duration;
        let typical = match scenario.end {
            End::AtDuration | End::WhenTold => at_most,
            End::WhenMeasured => {
                let last_change = scenario.script.last().map_or(Duration::ZERO, |event| event.at);
                let rules = scenario.settling_rules();
                let parts = if swings(scenario) { SWINGING } else { 1.0 };
                let windows = OTHER_WINDOWS + parts * rules.min_values as f64;
                let measured = Duration::from_secs_f64(windows * rules.window_s);
                (before + last_change + measured).min(at_most)
            }
        };
        Self { typical, at_most }
    }
}

/// Whether the rate will not stand still: QEMU 10 sleeps through its periods once the quota is below the floor, and the
/// guest writes in rare bursts.
fn swings(scenario: &Scenario) -> bool {
    let vm = &scenario.vm;
    let floor = predicted_floor_mib_s(vm.ring, vm.limiter.period);
    let below = scenario
        .quotas
        .iter()
        .flatten()
        .any(|quota| quota.mib_per_sec() < floor);
    vm.limiter.kind == LimiterKind::Qemu10 && below
}

impl std::ops::Add for Estimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            typical: self.typical + other.typical,
            at_most: self.at_most + other.at_most,
        }
    }
}

impl std::iter::Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(estimates: I) -> Self {
        estimates.fold(Self::default(), std::ops::Add::add)
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "about {}, at most {}", rounded(self.typical), rounded(self.at_most))
    }
}

/// To whole seconds below two minutes, to whole minutes above.
fn rounded(length: Duration) -> String {
    match length.as_secs_f64().round() as u64 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(text: &str) -> Estimate {
        let settings = toml::from_str(text).expect("valid settings");
        Estimate::of(&Scenario::new(&settings, 1, End::WhenMeasured).expect("a valid cell"))
    }

    #[test]
    fn a_cell_takes_eleven_periods_and_at_most_its_duration() {
        let floor = estimate("ring = 65536\nquota = 25\nwarm-up = '1s'");
        assert_eq!(floor.typical, SET_UP + Duration::from_secs(12));
        assert!(floor.at_most > floor.typical);
        let short = estimate("ring = 65536\nquota = 25\nwarm-up = '1s'\nduration = '3s'");
        assert_eq!(short.typical, short.at_most);
    }

    #[test]
    fn estimates_add_up_and_read_well() {
        let sum: Estimate = [100, 200, 7000]
            .into_iter()
            .map(|seconds| Estimate {
                typical: Duration::from_secs(seconds),
                at_most: Duration::from_secs(2 * seconds),
            })
            .sum();
        assert_eq!(sum.to_string(), "about 2.0 h, at most 4.1 h");
        assert_eq!(rounded(Duration::from_millis(90_400)), "90 s");
        assert_eq!(rounded(Duration::from_secs(285)), "5 min");
    }
}
