//! How fast vCPUs dirty memory, as one line that is no wider than the terminal: each of a few vCPUs, of many their sum, those
//! furthest off, and how many are off.

use std::collections::VecDeque;

use super::table::or_dash;
use crate::{analysis::is_at_quota, model::Sample};

/// A rate on the screen is the mean of the samples of so many seconds.
const SHOWN_S: f64 = 1.0;
/// So many vCPUs are shown each, where there is room.
const FEW: usize = 3;
/// Of more than that so many, those furthest off.
const WORST: usize = 3;

/// Rates of the last second.
#[derive(Debug, Default)]
pub(super) struct Rates {
    recent: VecDeque<Vec<Sample>>,
}

/// One vCPU over the last second.
struct Shown<'a> {
    vcpu: u32,
    newest: &'a Sample,
    truth: Option<f64>,
    in_guest_pct: Option<f64>,
}

impl Rates {
    pub(super) fn push(&mut self, rows: &[Sample]) {
        self.recent.push_back(rows.to_vec());
        let time = |rows: &Vec<Sample>| rows.first().map_or(0.0, |row| row.t_s);
        let newest = self.recent.back().map_or(0.0, time);
        // A little less, so that a sample that came early doesn't stay one longer.
        while self
            .recent
            .front()
            .is_some_and(|oldest| newest - time(oldest) > 0.95 * SHOWN_S)
        {
            self.recent.pop_front();
        }
    }

    /// The line, of `width` characters at most; `None` is as many as it takes.
    pub(super) fn line(&self, width: Option<usize>) -> String {
        let Some(newest) = self.recent.back().filter(|rows| !rows.is_empty()) else {
            return String::new();
        };
        let width = width.unwrap_or(usize::MAX);
        let head = format!("{:6.1} s  ", newest[0].t_s);
        let shown: Vec<Shown<'_>> = newest.iter().map(|row| self.shown(row)).collect();
        let fits = |line: &String| line.chars().count() <= width;
        let each = (shown.len() <= FEW).then(|| {
            let each: Vec<String> = shown.iter().map(Shown::words).collect();
            head.clone() + &each.join("  |  ")
        });
        let mut shorter = (0..=WORST).rev().map(|worst| head.clone() + &together(&shown, worst));
        each.filter(fits)
            .or_else(|| shorter.find(fits))
            .unwrap_or_else(|| (head + &together(&shown, 0)).chars().take(width).collect())
    }

    fn shown<'a>(&self, newest: &'a Sample) -> Shown<'a> {
        let mean = |value: fn(&Sample) -> Option<f64>| {
            let all = self.recent.iter();
            let rows = all.filter_map(|rows| rows.iter().find(|row| row.vcpu == newest.vcpu));
            let values: Vec<f64> = rows.filter_map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Shown {
            vcpu: newest.vcpu,
            newest,
            truth: mean(|row| row.guest_mib_s),
            in_guest_pct: mean(|row| row.utilisation_pct),
        }
    }
}

impl Shown<'_> {
    fn words(&self) -> String {
        let newest = self.newest;
        let limit = match (newest.quota_mib_s, newest.vm_quota_mib_s) {
            (None, None) => "no limit".to_owned(),
            (Some(own), None) => format!("limit {own}"),
            (None, Some(vm)) => format!("limit {vm} for all"),
            (Some(own), Some(vm)) => format!("limit {own}, {vm} for all"),
        };
        format!(
            "vCPU {}: {limit}, reads {}, truth {} MiB/s, throttle {}, in guest {} %",
            self.vcpu,
            or_dash(newest.ring_mib_s, rate),
            or_dash(self.truth, rate),
            or_dash(newest.throttle_us, pause),
            or_dash(self.in_guest_pct, |pct| format!("{pct:.0}"))
        )
    }

    /// What it is judged by: the truth, or, of a guest that keeps no counter, the reading.
    fn rate(&self) -> Option<f64> {
        self.truth.or(self.newest.ring_mib_s)
    }

    /// By how much it is off its own quota, as a share of that.
    fn off(&self) -> Option<f64> {
        let quota = self.newest.quota_mib_s?;
        Some((self.rate()? - quota) / quota)
    }

    fn is_off(&self) -> bool {
        let judged = self.newest.quota_mib_s.zip(self.rate());
        judged.is_some_and(|(quota, rate)| !is_at_quota(rate, quota))
    }
}

/// All of them together, and the `most` that are furthest off, or, without quotas of their own, dirty the most.
fn together(shown: &[Shown<'_>], most: usize) -> String {
    let sum = |value: &dyn Fn(&Shown<'_>) -> Option<f64>| shown.iter().map(value).sum::<Option<f64>>();
    let (reads, truth) = (sum(&|one| one.newest.ring_mib_s), sum(&|one| one.truth));
    let mut parts = vec![format!(
        "{} vCPUs: {}, reads {}, truth {} MiB/s in all",
        shown.len(),
        limits(shown),
        or_dash(reads, rate),
        or_dash(truth, rate)
    )];
    let with_quota = shown.iter().any(|one| one.newest.quota_mib_s.is_some());
    let mut ranked: Vec<(&Shown<'_>, f64)> = if with_quota {
        let off = |one| Some((one, Shown::off(one)?));
        shown.iter().filter_map(off).collect()
    } else {
        let dirties = |one| Some((one, Shown::rate(one)?));
        shown.iter().filter_map(dirties).collect()
    };
    ranked.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    let worst: Vec<String> = ranked
        .iter()
        .take(most)
        .map(|(one, off)| {
            let does = or_dash(one.rate(), rate);
            if with_quota {
                format!("vCPU {} {does} ({:+.0} %)", one.vcpu, 100.0 * off)
            } else {
                format!("vCPU {} {does}", one.vcpu)
            }
        })
        .collect();
    if !worst.is_empty() {
        let name = if with_quota { "furthest off" } else { "most" };
        parts.push(format!("{name}: {}", worst.join(", ")));
    }
    if with_quota {
        parts.push(format!("{} off", shown.iter().filter(|one| one.is_off()).count()));
    }
    let free = |one: &&Shown<'_>| one.newest.quota_mib_s.is_none() && one.newest.vm_quota_mib_s.is_none();
    let free = shown.iter().filter(free).count();
    if with_quota && free > 0 {
        parts.push(format!("{free} without a limit"));
    }
    parts.join("; ")
}

fn limits(shown: &[Shown<'_>]) -> String {
    let quotas: Vec<f64> = shown.iter().filter_map(|one| one.newest.quota_mib_s).collect();
    let all = shown[0].newest.vm_quota_mib_s.map(|vm| format!("limit {vm} for all"));
    let own = match quotas.as_slice() {
        [] => None,
        [first, rest @ ..] if rest.iter().all(|quota| quota.total_cmp(first).is_eq()) => {
            Some(format!("limit {first} each"))
        }
        several => Some(format!("limits of {} in all", several.iter().sum::<f64>())),
    };
    match (own, all) {
        (None, None) => "no limit".to_owned(),
        (own, all) => own.into_iter().chain(all).collect::<Vec<_>>().join(", "),
    }
}

fn rate(mib_s: f64) -> String {
    format!("{mib_s:.1}")
}

/// A throttle in the unit that suits it.
fn pause(micros: u64) -> String {
    match micros {
        0 => "none".to_owned(),
        _ if micros < 1000 => format!("{micros} us"),
        _ if micros < 1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(vcpus: u32, row: impl Fn(u32) -> Sample) -> Rates {
        let mut rates = Rates::default();
        rates.push(&(0..vcpus).map(row).collect::<Vec<_>>());
        rates
    }

    fn limited(vcpu: u32, quota: f64, does: f64) -> Sample {
        Sample {
            vcpu,
            t_s: 12.3,
            quota_mib_s: Some(quota),
            ring_mib_s: Some(does),
            ..Sample::default()
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let line = rates(1, |vcpu| limited(vcpu, 25.0, 24.9)).line(None);
        assert_eq!(
            line,
            "  12.3 s  vCPU 0: limit 25, reads 24.9, truth - MiB/s, throttle -, in guest - %"
        );
    }

    #[test]
    fn many_are_summed_up_and_those_furthest_off_are_named() {
        let does = |vcpu| match vcpu {
            17 => 3.2,
            5 => 0.9,
            40 => 2.7,
            8 => 2.6,
            _ => 2.0,
        };
        let line = rates(64, |vcpu| limited(vcpu, 2.0, does(vcpu))).line(None);
        assert_eq!(
            line,
            "  12.3 s  64 vCPUs: limit 2 each, reads 129.4, truth - MiB/s in all; furthest off: vCPU 17 3.2 (+60 %), vCPU 5 \
             0.9 (-55 %), vCPU 40 2.7 (+35 %); 4 off"
        );
    }

    #[test]
    fn under_a_quota_for_all_those_that_dirty_most_are_named() {
        let shared = |vcpu| Sample {
            quota_mib_s: None,
            vm_quota_mib_s: Some(100.0),
            guest_mib_s: Some(f64::from(vcpu)),
            ..limited(vcpu, 1.0, 1.0)
        };
        let line = rates(4, shared).line(None);
        assert_eq!(
            line,
            "  12.3 s  4 vCPUs: limit 100 for all, reads 4.0, truth 6.0 MiB/s in all; most: vCPU 3 3.0, vCPU 2 2.0, vCPU 1 1.0"
        );
    }

    proptest! {
        #[test]
        fn it_is_never_wider_than_the_terminal(
            vcpus in 1_u32..200,
            width in 0_usize..200,
            rates_mib_s in prop::collection::vec(prop::option::of(0.0..2e4_f64), 200),
            quota in prop::option::of(0.5..1e4_f64),
        ) {
            let row = |vcpu: u32| Sample {
                quota_mib_s: quota,
                guest_mib_s: rates_mib_s[vcpu as usize],
                ..limited(vcpu, 1.0, 1.0)
            };
            let line = rates(vcpus, row).line(Some(width));
            prop_assert!(line.chars().count() <= width, "{} > {width}: {line}", line.len());
        }
    }
}
