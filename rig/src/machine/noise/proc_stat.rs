//! Where the CPUs' time went: `/proc/stat` for the machine, `/proc/PID/stat` for what is ours. Both count in the same ticks.

use std::{collections::BTreeMap, fs};

/// Ticks since boot of one CPU, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    busy: u64,
    steal: u64,
    total: u64,
}

/// One reading of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcStat {
    all: Ticks,
    each: BTreeMap<u32, Ticks>,
    /// Ticks used by this process and its children.
    ours: u64,
}

/// What became of the time between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// Percent of all CPUs' time in which they were ready to run, but the hypervisor ran somebody else.
    pub(super) steal_pct: f64,
    /// The same of the CPU that was worst off.
    pub(super) steal_worst_cpu_pct: f64,
    /// CPUs' worth of time used by processes and interrupts that are not ours.
    pub(super) others_cpus: f64,
    /// CPUs' worth of time that nobody used.
    pub(super) idle_cpus: f64,
}

impl ProcStat {
    /// Reads the machine as it is; `None` where the kernel does not say.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, ours())
    }

    /// `None` if the text has no line for all CPUs.
    fn parse(text: &str, ours: u64) -> Option<Self> {
        let mut all = None;
        let mut each = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(index) = words.next().and_then(|name| name.strip_prefix("cpu")) else {
                continue;
            };
            // user nice system idle iowait irq softirq steal; the guest times behind them are part of user and nice.
            let numbers: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
            let &[user, nice, system, idle, iowait, irq, softirq, steal] = numbers.as_slice() else {
                continue;
            };
            let sum = |ticks: &[u64]| ticks.iter().fold(0, |sum: u64, &ticks| sum.saturating_add(ticks));
            let busy = sum(&[user, nice, system, irq, softirq]);
            let ticks = Ticks {
                busy,
                steal,
                total: sum(&[busy, steal, idle, iowait]),
            };
            match index.parse() {
                Ok(index) => drop(each.insert(index, ticks)),
                Err(_) => all = Some(ticks),
            }
        }
        Some(Self { all: all?, each, ours })
    }

    /// What happened since `earlier`; `None` if not a tick has passed.
    pub(super) fn since(&self, earlier: &Self) -> Option<Shares> {
        let all = self.all.since(earlier.all);
        if all.total == 0 {
            return None;
        }
        let cpus = |ticks: u64| ticks as f64 / all.total as f64 * self.each.len() as f64;
        let steal_worst_cpu_pct = self
            .each
            .iter()
            .filter_map(|(index, ticks)| Some(ticks.since(*earlier.each.get(index)?).steal_pct()))
            .fold(0.0, f64::max);
        let ours = self.ours.saturating_sub(earlier.ours);
        Some(Shares {
            steal_pct: all.steal_pct(),
            steal_worst_cpu_pct,
            others_cpus: cpus(all.busy.saturating_sub(ours)),
            idle_cpus: cpus(all.total.saturating_sub(all.busy).saturating_sub(all.steal)),
        })
    }
}

impl Ticks {
    /// The kernel lets idle time run backwards now and then, hence the saturation.
    fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            steal: self.steal.saturating_sub(earlier.steal),
            total: self.total.saturating_sub(earlier.total),
        }
    }

    /// Per-CPU totals may lag behind their parts by a tick, hence the bound.
    fn steal_pct(self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            (100.0 * self.steal as f64 / self.total as f64).min(100.0)
        }
    }
}

/// Ticks used by this process and its children: a VMM that is measured is one of them.
fn ours() -> u64 {
    let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let children: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .map(|pid| used(&stat(pid)).0)
                .collect::<Vec<_>>()
        })
        .sum();
    let (own, of_ended_children) = used(&stat("self"));
    own.saturating_add(of_ended_children).saturating_add(children)
}

/// The ticks that a process used, and those of its children that have ended.
fn used(stat: &str) -> (u64, u64) {
    // The name, second of the fields, may hold anything, brackets too; what follows the last one is numbers.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // utime, stime, cutime, cstime are fields 14 to 17; the state behind the name is the third.
    let ticks: Vec<u64> = after_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .map_while(|word| word.parse().ok())
        .collect();
    match ticks.as_slice() {
        &[user, system, children_user, children_system] => (user + system, children_user + children_system),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
cpu  100 10 50 1000 5 3 2 30 40 4
cpu0 60 5 30 480 5 3 1 20 40 4
cpu1 40 5 20 520 0 0 1 10 0 0
intr 12345
";
    const AFTER: &str = "\
cpu  140 10 60 1100 5 3 2 80 70 4
cpu0 100 5 40 490 5 3 1 60 70 4
cpu1 40 5 20 610 0 0 1 20 0 0
intr 22345
";

    fn at(text: &str, ours: u64) -> ProcStat {
        ProcStat::parse(text, ours).unwrap()
    }

    #[test]
    fn shares_of_the_time_between() {
        let shares = at(AFTER, 1030).since(&at(BEFORE, 1000)).unwrap();
        // 40 user + 10 system + 100 idle + 50 stolen = 200 ticks on two CPUs; of CPU 0's 100, 40 were stolen; of the 50
        // busy ones, 30 were ours.
        assert!((shares.steal_pct - 25.0).abs() < 1e-9);
        assert!((shares.steal_worst_cpu_pct - 40.0).abs() < 1e-9);
        assert!((shares.others_cpus - 0.2).abs() < 1e-9);
        assert!((shares.idle_cpus - 1.0).abs() < 1e-9);
    }

    #[test]
    fn no_time_no_shares() {
        assert_eq!(at(BEFORE, 0).since(&at(BEFORE, 0)), None);
    }

    #[test]
    fn time_that_runs_backwards_is_no_time() {
        assert_eq!(at(BEFORE, 0).since(&at(AFTER, 0)), None);
    }

    #[test]
    fn a_cpu_that_came_online_in_between_is_left_out() {
        let before = at("cpu 0 0 0 100 0 0 0 0\ncpu0 0 0 0 100 0 0 0 0\n", 0);
        let after = at(
            "cpu 0 0 0 200 0 0 0 0\ncpu0 0 0 0 150 0 0 0 0\ncpu1 0 0 0 1 0 0 0 49\n",
            0,
        );
        assert!(after.since(&before).unwrap().steal_worst_cpu_pct < 1e-9);
    }

    #[test]
    fn text_without_the_sum_is_refused() {
        assert_eq!(ProcStat::parse("cpu0 1 2 3 4 5 6 7 8\n", 0), None);
        assert_eq!(ProcStat::parse("", 0), None);
        assert_eq!(ProcStat::parse("cpu 1 2 3\n", 0), None);
    }

    #[test]
    fn a_name_may_hold_brackets() {
        let stat = "42 (a) b 1) S 1 42 42 0 -1 4194560 1 2 3 4 700 80 5 6 20 0 1 0";
        assert_eq!(used(stat), (780, 11));
        assert_eq!(used(""), (0, 0));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_reading_or_refused(lines in proptest::collection::vec(proptest::sample::select(vec![
            "cpu", "cpu0", "cpu99999999999999999999", " ", "0", "1", "18446744073709551615", "-1", "\n", "\u{e9}",
        ]), 0..60), stat in ".*") {
            if let Some(reading) = ProcStat::parse(&lines.concat(), u64::MAX) {
                let _ = reading.since(&at(BEFORE, 0));
                let _ = at(AFTER, 0).since(&reading);
            }
            used(&stat);
        }
    }
}
