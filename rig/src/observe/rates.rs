//! What each vCPU did between two readings of its counters.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use dirtyrig_limiter::units::Pages;
use dirtyrig_probes::{ExitReason, Stall, StallCause, StallCounters, VcpuCounters};

use super::watched::{Reading, Sees};

/// Intervals that the figures of stalls on a screen are taken over: at one per second, enough for a median of stalls that
/// come once a second.
const STEADY: usize = 10;

/// Stalls of one cause in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StallFigures {
    /// How many ended.
    pub count: u64,
    /// The length that half of them do not exceed, to within a sixteenth; with none, none.
    pub p50: Option<Duration>,
    /// The same for 99 of 100.
    pub p99: Option<Duration>,
    /// The longest, exactly where its record was not lost.
    pub max: Option<Duration>,
    /// Their length in all.
    pub total: Duration,
}

/// Exits for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitRate {
    /// The reason.
    pub reason: ExitReason,
    /// Its name.
    pub name: String,
    /// How often in a second.
    pub per_s: f64,
}

/// One vCPU in one interval.
#[derive(Clone, Debug)]
pub struct VcpuRates {
    /// Its counters at the end.
    pub counters: VcpuCounters,
    /// Pages dirtied, as a rate; `None` where they are not seen.
    pub dirty_mib_s: Option<f64>,
    /// Ring-full exits per second; `None` where returns of `KVM_RUN` are not seen.
    pub ring_full_per_s: Option<f64>,
    /// Share of the time stalled, whatever the cause, an unfinished stall included; `None` where stalls' ends are not
    /// seen.
    pub stalled_pct: Option<f64>,
    /// Share of the time in `KVM_RUN`; `None` where that is not seen.
    pub in_run_pct: Option<f64>,
    /// Stalls because the ring was full.
    pub ring_full: StallFigures,
    /// Stalls because `KVM_RUN` was interrupted.
    pub interrupted: StallFigures,
    /// Both, in this order, over the last ten intervals.
    pub steady: [StallFigures; 2],
    /// Exits by reason, most frequent first.
    pub exits: Vec<ExitRate>,
}

/// Turns readings into rates.
#[derive(Debug)]
pub struct Rates {
    seen: HashMap<u32, VecDeque<Shot>>,
    /// The longest stall of each thread and cause since the last reading.
    longest: BTreeMap<(u32, usize), Duration>,
    last: Duration,
}

/// The counters of a thread at the end of an interval, and the longest stalls in it.
#[derive(Clone, Debug)]
struct Shot {
    counters: VcpuCounters,
    longest: [Duration; 2],
}

impl Rates {
    /// Rates from `at` on, when every count was 0.
    pub fn from(at: Duration) -> Self {
        Self {
            seen: HashMap::new(),
            longest: BTreeMap::new(),
            last: at,
        }
    }

    /// Takes in a stall of the interval.
    pub fn stall(&mut self, stall: &Stall) {
        let longest = self.longest.entry((stall.thread, index(stall.cause))).or_default();
        *longest = stall.length().max(*longest);
    }

    /// Ends an interval.
    pub fn end(&mut self, reading: &Reading) -> Vec<VcpuRates> {
        let last = std::mem::replace(&mut self.last, reading.at);
        let longest = std::mem::take(&mut self.longest);
        let there: HashSet<u32> = reading.vcpus.iter().map(|vcpu| vcpu.thread).collect();
        self.seen.retain(|thread, _| there.contains(thread));
        let rates = |now: &VcpuCounters| {
            let shots = self.seen.entry(now.thread).or_default();
            // Another process may have inherited the number of a thread that ended.
            if shots.back().is_none_or(|shot| shot.counters.process != now.process) {
                shots.clear();
                shots.push_back(Shot {
                    counters: unborn(now, last),
                    longest: [Duration::ZERO; 2],
                });
            }
            shots.push_back(Shot {
                counters: now.clone(),
                longest: [0, 1].map(|cause| longest.get(&(now.thread, cause)).copied().unwrap_or_default()),
            });
            if shots.len() > STEADY + 1 {
                shots.pop_front();
            }
            rates(shots, reading.sees)
        };
        reading.vcpus.iter().map(rates).collect()
    }
}

fn rates(shots: &VecDeque<Shot>, sees: Sees) -> VcpuRates {
    let (then, now) = (&shots[shots.len() - 2], &shots[shots.len() - 1]);
    // Each was read at a moment of its own.
    let span = now.counters.at.saturating_sub(then.counters.at);
    let seconds = span.as_secs_f64();
    let per_s = |gain: u64| if seconds > 0.0 { gain as f64 / seconds } else { 0.0 };
    let share = |of: fn(&Shot) -> Duration| {
        let spent = of(now).saturating_sub(of(then)).as_secs_f64();
        // The two parts of a stall are read one after the other.
        if seconds > 0.0 {
            (100.0 * spent / seconds).min(100.0)
        } else {
            0.0
        }
    };
    let gain = |of: fn(&VcpuCounters) -> u64| of(&now.counters).saturating_sub(of(&then.counters));
    let figures = |from: usize, cause: StallCause| {
        let longest = shots.iter().skip(from + 1).map(|shot| shot.longest[index(cause)]).max();
        let pick = |shot: &Shot| stalls_of(&shot.counters, cause).clone();
        stall_figures(&pick(now), &pick(&shots[from]), longest.unwrap_or_default())
    };
    let previous = shots.len() - 2;
    let mut exits: Vec<ExitRate> = now
        .counters
        .exit_reasons
        .iter()
        .map(|exit| {
            let earlier = then
                .counters
                .exit_reasons
                .iter()
                .find(|other| other.reason == exit.reason);
            ExitRate {
                reason: exit.reason,
                name: exit.name.clone(),
                per_s: per_s(exit.count.saturating_sub(earlier.map_or(0, |earlier| earlier.count))),
            }
        })
        .filter(|exit| exit.per_s > 0.0)
        .collect();
    exits.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then(a.reason.cmp(&b.reason)));
    VcpuRates {
        dirty_mib_s: (sees.pages && now.counters.sees_pages)
            .then(|| Pages(gain(|c| c.pushed_pages)).per(span).unwrap_or_default().0),
        ring_full_per_s: sees.returns.then(|| per_s(gain(|c| c.ring_full_exits))),
        stalled_pct: sees.stall_ends.then(|| share(stalled)),
        in_run_pct: sees.runs.then(|| share(|shot| shot.counters.in_run)),
        ring_full: figures(previous, StallCause::RingFull),
        interrupted: figures(previous, StallCause::Interrupted),
        steady: [StallCause::RingFull, StallCause::Interrupted].map(|cause| figures(0, cause)),
        exits,
        counters: now.counters.clone(),
    }
}

fn stall_figures(now: &StallCounters, then: &StallCounters, longest: Duration) -> StallFigures {
    let lengths = now.lengths.since(&then.lengths);
    // A stall whose record was lost, or is yet to be drained, is in the histogram alone.
    let by_histogram = lengths.buckets().last().map(|(from, _, _)| from);
    let max = by_histogram.map(|from| from.max(longest));
    let quantile = |share| Some(lengths.quantile(share)?.min(max?));
    StallFigures {
        count: now.count.saturating_sub(then.count),
        p50: quantile(0.5),
        p99: quantile(0.99),
        max,
        total: now.total.saturating_sub(then.total),
    }
}

fn stalls_of(counters: &VcpuCounters, cause: StallCause) -> &StallCounters {
    match cause {
        StallCause::RingFull => &counters.ring_full,
        StallCause::Interrupted => &counters.interrupted,
    }
}

fn index(cause: StallCause) -> usize {
    match cause {
        StallCause::RingFull => 0,
        StallCause::Interrupted => 1,
    }
}

/// Time stalled until now. Of a thread that has ended, an unfinished stall is not one.
fn stalled(shot: &Shot) -> Duration {
    let counters = &shot.counters;
    let open = counters.stalled_since.filter(|_| !counters.gone);
    let so_far = open.map_or(Duration::ZERO, |begin| counters.at.saturating_sub(begin));
    counters.ring_full.total + counters.interrupted.total + so_far
}

/// The counters of a thread before it did anything, which was at `at`.
fn unborn(counters: &VcpuCounters, at: Duration) -> VcpuCounters {
    VcpuCounters {
        at,
        process: counters.process,
        thread: counters.thread,
        vcpu: counters.vcpu,
        number: counters.number,
        gone: false,
        pushed_pages: 0,
        sees_pages: counters.sees_pages,
        reset_entries: 0,
        resets: 0,
        userspace_exits: 0,
        ring_full_exits: 0,
        runs: 0,
        entries: 0,
        exits: 0,
        in_run: Duration::ZERO,
        stalled_since: None,
        ring_full: StallCounters::default(),
        interrupted: StallCounters::default(),
        exit_reasons: Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dirtyrig_probes::{ExitCount, identity::Vm};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// A thread of process 1 that has pushed `pages`, with as many ring-full exits as thousands of them.
    pub(in crate::observe) fn thread(thread: u32, pages: u64) -> VcpuCounters {
        let none = VcpuCounters {
            process: 1,
            thread,
            ..unborn(&blank(), Duration::ZERO)
        };
        VcpuCounters {
            pushed_pages: pages,
            sees_pages: true,
            ring_full_exits: pages / 1000,
            userspace_exits: pages / 1000,
            exit_reasons: vec![ExitCount {
                reason: ExitReason::Userspace(31),
                name: "KVM_EXIT_DIRTY_RING_FULL".to_owned(),
                count: pages / 1000,
            }],
            ..none
        }
    }

    fn blank() -> VcpuCounters {
        VcpuCounters {
            at: Duration::ZERO,
            process: 0,
            thread: 0,
            vcpu: None,
            number: None,
            gone: false,
            pushed_pages: 0,
            sees_pages: true,
            reset_entries: 0,
            resets: 0,
            userspace_exits: 0,
            ring_full_exits: 0,
            runs: 0,
            entries: 0,
            exits: 0,
            in_run: Duration::ZERO,
            stalled_since: None,
            ring_full: StallCounters::default(),
            interrupted: StallCounters::default(),
            exit_reasons: Vec::new(),
        }
    }

    pub(in crate::observe) fn reading(seconds: u32, vcpus: Vec<VcpuCounters>) -> Reading {
        let at = seconds * S;
        Reading {
            at,
            vcpus: vcpus.into_iter().map(|vcpu| VcpuCounters { at, ..vcpu }).collect(),
            vms: BTreeMap::from([(1, vm())]),
            sees: Sees {
                pages: true,
                resets: true,
                returns: true,
                runs: true,
                stall_ends: true,
                hardware_exits: false,
            },
            ..Reading::default()
        }
    }

    fn near(rate: Option<f64>, expected: f64) -> bool {
        rate.is_some_and(|rate| (rate - expected).abs() < 1e-9)
    }

    fn vm() -> Vm {
        Vm {
            pid: 1,
            process: "qemu".to_owned(),
            name: Some("web01".to_owned()),
            uuid: None,
        }
    }

    #[test]
    fn a_rate_is_over_the_time_between_its_own_readings() {
        let mut rates = Rates::from(Duration::ZERO);
        rates.end(&reading(1, vec![thread(7, 5120)]));
        let late = VcpuCounters {
            at: 2 * S + S / 4,
            in_run: S,
            ..thread(7, 5120 + 3200)
        };
        let late = Reading {
            vcpus: vec![late],
            ..reading(2, Vec::new())
        };
        let next = rates.end(&late);
        assert!(near(next[0].dirty_mib_s, 10.0), "{:?}", next[0].dirty_mib_s);
        assert_eq!(next[0].in_run_pct, Some(80.0));
    }

    #[test]
    fn rates_are_gains_over_time() {
        let mut rates = Rates::from(10 * S);
        let first = rates.end(&reading(12, vec![thread(7, 5120)]));
        assert!(near(first[0].dirty_mib_s, 10.0), "since the probes were attached");
        let next = rates.end(&reading(13, vec![thread(7, 10_240), thread(8, 256)]));
        assert!(near(next[0].dirty_mib_s, 20.0));
        assert!(near(next[0].ring_full_per_s, 5.0));
        assert_eq!(
            (next[0].exits[0].name.as_str(), next[0].exits[0].per_s),
            ("KVM_EXIT_DIRTY_RING_FULL", 5.0)
        );
        assert!(near(next[1].dirty_mib_s, 1.0), "a thread that is new counts from 0");
    }

    #[test]
    fn a_thread_that_inherits_a_number_starts_anew() {
        let mut rates = Rates::from(Duration::ZERO);
        rates.end(&reading(1, vec![thread(7, 10_240)]));
        let other = VcpuCounters {
            process: 2,
            ..thread(7, 256)
        };
        let next = rates.end(&reading(2, vec![other]));
        assert!(near(next[0].dirty_mib_s, 1.0));
    }

    #[test]
    fn a_stall_that_has_not_ended_counts() {
        let mut rates = Rates::from(Duration::ZERO);
        let stalled = VcpuCounters {
            stalled_since: Some(S / 2),
            in_run: S / 4,
            ..thread(7, 0)
        };
        let first = rates.end(&reading(1, vec![stalled.clone()]));
        assert_eq!((first[0].stalled_pct, first[0].in_run_pct), (Some(50.0), Some(25.0)));
        let next = rates.end(&reading(2, vec![stalled.clone()]));
        assert_eq!((next[0].stalled_pct, next[0].in_run_pct), (Some(100.0), Some(0.0)));
        assert_eq!(next[0].ring_full, StallFigures::default());
        let gone = VcpuCounters { gone: true, ..stalled };
        assert_eq!(rates.end(&reading(3, vec![gone]))[0].stalled_pct, Some(0.0));
    }

    #[test]
    fn what_is_not_seen_is_not_zero() {
        let mut rates = Rates::from(Duration::ZERO);
        let blind = Reading {
            sees: Sees::default(),
            ..reading(1, vec![thread(7, 256)])
        };
        let rates = rates.end(&blind);
        assert_eq!((rates[0].stalled_pct, rates[0].in_run_pct), (None, None));
        assert_eq!((rates[0].dirty_mib_s, rates[0].ring_full_per_s), (None, None));
        // Of this vCPU alone its pages can't be seen.
        let unseen = VcpuCounters {
            sees_pages: false,
            ..thread(7, 0)
        };
        let rates = Rates::from(Duration::ZERO).end(&reading(1, vec![unseen, thread(8, 0)]));
        assert_eq!((rates[0].dirty_mib_s, rates[0].ring_full_per_s), (None, Some(0.0)));
        assert_eq!(rates[1].dirty_mib_s, Some(0.0));
    }
}
