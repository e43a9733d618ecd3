//! One cell's samples and pauses in, one summary a vCPU out.
//!
//! For each vCPU the **limited part** begins where its quota changed last (in a sweep at `t_s` = 0). The **measured
//! part** begins where it settled within that, or where the engine says. Of a vCPU that never settled the second half is
//! measured, and the verdict says so.
//!
//! A limiter's own reading is that of the last period that has ended, so it speaks of the measured part alone only from
//! two periods after its start on. What it says before that is left out, if that leaves anything.

use std::time::Duration;

use dirtyrig_limiter::units::{MibPerSec, Pages};

use super::{
    parts::{Part, unlimited_rate},
    pauses::Pauses,
    settle::{Moving, Settling, State},
    steady::{Steady, overshoot_pct},
    together::together,
    untold::{by_log, is_untold, told_by_log, untell},
    verdict::{Basis, Evidence, Judgement, judge},
    windows::Windows,
};
use crate::model::{LawFacts, Moves, Rules, Sample, Stall, Summary};

/// Periods until a reading speaks of nothing but what came after an instant: one that was under way, and one more.
const READING_LAG: f64 = 2.0;

/// What is known of a cell before it is run.
#[derive(Clone, Debug, PartialEq)]
pub struct CellFacts {
    /// Number of the cell.
    pub cell: u32,
    /// Which repetition of the same settings, from 0.
    pub repetition: u32,
    /// Name and version of the VMM.
    pub vmm: String,
    /// Name of the limiter.
    pub limiter: String,
    /// Name of each vCPU's program; `None` of a guest that is not ours.
    pub guests: Vec<Option<String>>,
    /// How long the longest of the programs' own cycles takes, of those that have one.
    pub guest_cycle: Option<Duration>,
    /// Entries of a vCPU's ring, if they are known.
    pub ring_entries: Option<u32>,
    /// The measuring period as asked for.
    pub period: Duration,
    /// Memory that is dirtied, all vCPUs together; `None` of a guest that is not ours.
    pub memory_mib: Option<u64>,
    /// Whether pauses are seen: their number is not known otherwise.
    pub sees_pauses: bool,
    /// What bounds the limiter.
    pub law: LawFacts,
    /// Where the measured part begins at the earliest; `None` leaves it to settling.
    pub measure_from_s: Option<f64>,
}

impl LawFacts {
    /// The throttle in force, in seconds, of a law that sets one once a period; what others tell is that of their last pause.
    pub fn throttle_s(&self, row: &Sample) -> Option<f64> {
        let throttle = Duration::from_micros(row.throttle_us?);
        self.period.map(|period| throttle.min(period).as_secs_f64())
    }
}

impl CellFacts {
    /// By which rules a rate settles at a quota.
    pub fn rules(&self, quota_mib_s: Option<f64>) -> Rules {
        self.law.rules(quota_mib_s, self.ring_entries, self.guest_cycle)
    }

    fn floor(&self) -> Option<MibPerSec> {
        let period = self.law.period.filter(|_| self.law.whole_rings)?;
        Pages(u64::from(self.ring_entries?)).per(period)
    }
}

/// Sums up each vCPU of a cell that has samples, in the order of `facts.guests`. The samples are in the order of their
/// times; the pauses are on their clock: `at` is 0 where `t_s` is.
pub fn summarize(facts: &CellFacts, samples: &[Sample], stalls: &[Stall]) -> Vec<Summary> {
    let sums = together(samples);
    // What the sums call their own quota is that of all together.
    let vm = sums
        .last()
        .and_then(|last| judge_together(facts, &sums, last.quota_mib_s?));
    let mut rows: Vec<Summary> = (0_u32..)
        .zip(&facts.guests)
        .filter_map(|(vcpu, guest)| {
            let own: Vec<&Sample> = samples.iter().filter(|sample| sample.vcpu == vcpu).collect();
            let stalls = stalls.iter().filter(|stall| stall.vcpu as u64 == u64::from(vcpu));
            with_basis(&own, |rows, basis| {
                let course = Course::of(facts, rows, basis)?;
                let summary = summarize_vcpu(facts, vcpu, guest.as_deref(), &course, &sums, stalls, vm.as_ref());
                Some(if basis == Basis::Log { untell(summary) } else { summary })
            })
        })
        .collect();
    // Indices have gaps where vCPUs were plugged: as many rows finish the cell as there are.
    let vcpus = rows.len().try_into().unwrap_or(u32::MAX);
    for row in &mut rows {
        row.vcpus = vcpus;
    }
    rows
}

/// The quota that paces a vCPU at the end of a cell.
fn least_quota(row: &Sample) -> Option<f64> {
    row.quota_mib_s.into_iter().chain(row.vm_quota_mib_s).reduce(f64::min)
}

/// Hands on the rows with the rates to judge by: the guest's own, or, where it keeps no counter, those logged.
fn with_basis<T>(rows: &[&Sample], judged: impl FnOnce(&[&Sample], Basis) -> T) -> T {
    if is_untold(rows) {
        let told = by_log(rows);
        judged(&told.iter().collect::<Vec<_>>(), Basis::Log)
    } else {
        judged(rows, Basis::Counter)
    }
}

/// Judges all vCPUs together by the quota that they share.
fn judge_together(facts: &CellFacts, sums: &[Sample], quota: f64) -> Option<Judgement> {
    let judgement = with_basis(&sums.iter().collect::<Vec<_>>(), |rows, basis| {
        let course = Course::of(facts, rows, basis)?;
        // Its floor is one of each ring: limiters that give out whole rings can't hold a quota of the VM.
        Some(judge(&course.evidence(facts, Some(quota), None)))
    })?;
    Some(Judgement {
        reason: format!("all vCPUs together: {}", judgement.reason),
        ..judgement
    })
}

/// The rates of one vCPU, or of all together, and which part of them counts.
struct Course<'a> {
    basis: Basis,
    rules: Rules,
    settling: Settling,
    state: State,
    limited: Part<'a>,
    measured: Part<'a>,
    truth: Option<Steady>,
    reading: Option<Steady>,
    guest_mib_s: Option<f64>,
    ring_mib_s: Option<f64>,
    unlimited_mib_s: Option<f64>,
    last: &'a Sample,
}

impl<'a> Course<'a> {
    fn of(facts: &CellFacts, rows: &'a [&'a Sample], basis: Basis) -> Option<Self> {
        let last = *rows.last()?;
        let limited = Part::limited(rows);
        let rules = facts.rules(least_quota(last));
        let mut settling = Settling::new(rules, limited.start_s);
        for row in limited.rows {
            if let Some(rate) = row.guest_mib_s {
                settling.push(row.t_s, rate, facts.law.throttle_s(row));
            }
        }
        let state = settling.state();
        let from_s = state.since_s().unwrap_or(f64::midpoint(limited.start_s, last.t_s));
        let measured = limited.from(facts.measure_from_s.unwrap_or(from_s));
        let read = measured.later(READING_LAG * facts.period.as_secs_f64());
        let binned = |part: &Part<'_>, value: fn(&Sample) -> Option<f64>| {
            let series = part.rows.iter().filter_map(|row| Some((row.t_s, value(row)?)));
            Steady::of(&Windows::over(series, part.start_s, rules.window_s))
        };
        let known = |rate| match basis {
            Basis::Counter => rate,
            Basis::Log => told_by_log(rate),
        };
        let guest_mib_s = known(measured.rate(|row| row.written_pages));
        // Without a warm-up the only unlimited rate there is may be the measured one.
        let is_free = last.quota_mib_s.is_none() && last.vm_quota_mib_s.is_none();
        let unlimited_mib_s = known(unlimited_rate(rows)).or(guest_mib_s.filter(|_| is_free));
        Some(Self {
            basis,
            rules,
            truth: binned(&measured, |row| row.guest_mib_s),
            reading: binned(&read, |row| row.ring_mib_s),
            guest_mib_s,
            ring_mib_s: read.mean(|row| row.ring_mib_s),
            unlimited_mib_s,
            settling,
            state,
            limited,
            measured,
            last,
        })
    }

    /// The median of the limiter's readings; their mean where no window is whole, because the limiter settled at once and
    /// so was measured for a short time only. A reading stands until the next one, and QEMU 10 may take many periods to that:
    /// the mean keeps the first.
    fn ring_median_mib_s(&self) -> Option<f64> {
        self.reading.map(|reading| reading.median).or(self.ring_mib_s)
    }

    fn oscillation_pct(&self) -> Option<f64> {
        self.truth.and_then(|truth| truth.oscillation_pct())
    }

    fn cap_floor(&self, facts: &CellFacts) -> Option<f64> {
        Some(facts.law.cap_share? * self.unlimited_mib_s?)
    }

    fn evidence(&self, facts: &CellFacts, quota: Option<f64>, floor: Option<f64>) -> Evidence {
        Evidence {
            quota,
            unlimited: self.unlimited_mib_s,
            guest: self.guest_mib_s,
            basis: self.basis,
            ring: self.ring_median_mib_s(),
            oscillation_pct: self.oscillation_pct(),
            state: self.state,
            ring_full_per_period: self
                .measured
                .gain_per_s(|row| row.ring_full_exits)
                .map(|per_s| per_s * facts.period.as_secs_f64()),
            floor,
            cap_floor: self.cap_floor(facts),
            tolerance: facts.law.tolerance_mib_s,
        }
    }
}

fn summarize_vcpu<'a>(
    facts: &CellFacts,
    vcpu: u32,
    guest: Option<&str>,
    course: &Course<'_>,
    sums: &[Sample],
    stalls: impl Iterator<Item = &'a Stall>,
    vm: Option<&Judgement>,
) -> Summary {
    let Course {
        settling,
        state,
        limited,
        measured,
        truth,
        reading,
        guest_mib_s,
        last,
        ..
    } = course;
    let since_s = match state {
        State::Settled { since_s } => Some(*since_s),
        _ => None,
    };
    let floor = facts.floor().map(|floor| floor.0);
    // A vCPU that has no limit but the one of all together is judged by what all do.
    let judgement = match vm {
        Some(vm) if last.quota_mib_s.is_none() => vm.clone(),
        _ => judge(&course.evidence(facts, last.quota_mib_s, floor)),
    };
    let transient = since_s.map_or(settling.values(), |since_s| settling.values_before(since_s));
    // Without a sample before it the rate rose from nothing.
    let before = limited.base.map_or(Some(0.0), |row| row.guest_mib_s);
    let error = last.quota_mib_s.zip(*guest_mib_s).map(|(quota, guest)| guest - quota);
    let pauses = Pauses::of(stalls, measured.start_s);
    let interval = |steady: &Option<Steady>| steady.and_then(|steady| steady.interval);

    Summary {
        vcpu,
        guest: guest.map(str::to_owned),
        quota_mib_s: last.quota_mib_s,
        unlimited_mib_s: course.unlimited_mib_s,
        measured_s: measured.span_s(),
        ring_mib_s: course.ring_mib_s,
        ring_median_mib_s: course.ring_median_mib_s(),
        ring_sd_mib_s: reading.and_then(|reading| reading.sd),
        ring_ci_low_mib_s: interval(reading).map(|interval| interval.low),
        ring_ci_high_mib_s: interval(reading).map(|interval| interval.high),
        guest_mib_s: *guest_mib_s,
        guest_median_mib_s: truth.map(|truth| truth.median),
        guest_sd_mib_s: truth.and_then(|truth| truth.sd),
        guest_ci_low_mib_s: interval(truth).map(|interval| interval.low),
        guest_ci_high_mib_s: interval(truth).map(|interval| interval.high),
        window_s: course.rules.window_s,
        guest_read_mib_s: measured.rate(|row| row.read_pages),
        utilisation_pct: measured.mean(|row| row.utilisation_pct),
        settle_s: since_s.map(|since_s| since_s - limited.start_s),
        overshoot_pct: before
            .zip(*guest_mib_s)
            .and_then(|(before, level)| overshoot_pct(transient, before, level)),
        error_mib_s: error,
        error_pct: error.zip(last.quota_mib_s).map(|(error, quota)| 100.0 * error / quota),
        oscillation_pct: course.oscillation_pct(),
        ring_full_per_s: measured.gain_per_s(|row| row.ring_full_exits),
        pauses: facts.sees_pauses.then(|| pauses.count()),
        stall_p50_us: pauses.length(0.5),
        stall_p99_us: pauses.length(0.99),
        stall_p999_us: pauses.length(0.999),
        stall_max_us: pauses.length(1.0),
        lateness_p50_us: pauses.lateness(0.5),
        lateness_p99_us: pauses.lateness(0.99),
        asked_us: measured.gain(|row| row.asked_us),
        slept_us: measured.gain(|row| row.slept_us),
        predicted_floor_mib_s: floor,
        cap_floor_mib_s: course.cap_floor(facts),
        verdict: judgement.verdict,
        moves: moves(course.state),
        reason: judgement.reason,
        vm_quota_mib_s: last.vm_quota_mib_s,
        vm_guest_mib_s: rate_of_all(sums, |row| row.written_pages, measured.start_s, last.t_s),
        vm_ring_mib_s: rate_of_all(sums, |row| row.harvested_pages, measured.start_s, last.t_s),
        cost_pct: measured.gain_per_s(|row| row.cost_us).map(|us| us / 1e6 * 100.0),
        ..settings(facts)
    }
}

/// What of a vCPU moves, in a word.
fn moves(state: State) -> Option<Moves> {
    match state {
        State::Moving(Moving { rate: false, .. }) => Some(Moves::Throttle),
        State::Moving(Moving { throttle: None, .. }) => Some(Moves::Rate),
        State::Moving(_) => Some(Moves::Both),
        _ => None,
    }
}

/// The rate of all vCPUs together from `from_s` to `to_s`, by one of their counts, from their [`together`].
fn rate_of_all(sums: &[Sample], count: fn(&Sample) -> Option<u64>, from_s: f64, to_s: f64) -> Option<f64> {
    let pages = |at_s: f64| match sums.partition_point(|row| row.t_s <= at_s + 1e-6) {
        // Counts begin with the cell.
        0 => Some(0),
        next => count(&sums[next - 1]),
    };
    let span = Duration::try_from_secs_f64(to_s - from_s).ok()?;
    let gain = Pages(pages(to_s)?.saturating_sub(pages(from_s)?));
    gain.per(span).map(|rate| rate.0)
}

/// The columns that say what was run.
fn settings(facts: &CellFacts) -> Summary {
    Summary {
        cell: facts.cell,
        repetition: facts.repetition,
        vmm: facts.vmm.clone(),
        limiter: facts.limiter.clone(),
        ring_entries: facts.ring_entries,
        period_ms: facts.period.as_millis().try_into().unwrap_or(u64::MAX),
        memory_mib: facts.memory_mib,
        ..Summary::default()
    }
}

#[cfg(test)]
mod tests;
