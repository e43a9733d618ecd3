//! One cell's samples and pauses in, one summary a vCPU out.
//!
//! For each vCPU the **limited part** begins where its quota changed last (in a sweep at `t_s` = 0), the **measured
//! part** where it settled within that, or where the engine says. Of a vCPU that never settled the second half is
//! measured, and the verdict says so.
//!
//! A limiter's own reading is that of the last period that has ended, so it speaks of the measured part alone only from
//! two periods after its start on. What it says before that is left out, if that leaves anything.

use std::{collections::BTreeMap, time::Duration};

use dirtyrig_limiter::units::{MibPerSec, Pages};

use super::{
    parts::{Part, unlimited_rate},
    pauses::Pauses,
    settle::{Rules, Settling, State},
    steady::{Steady, overshoot_pct},
    untold::{by_log, is_untold, untell},
    verdict::{Evidence, judge},
    windows::Windows,
};
use crate::{
    engine::target::Stall,
    recording::schema::{Sample, Summary},
};

/// Periods until a reading speaks of nothing but what came after an instant: one that was under way, and one more.
const READING_LAG: f64 = 2.0;

/// What of a limiter bounds the rates that it can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LawFacts {
    /// How often it corrects; `None` if it acts all the time.
    pub period: Option<Duration>,
    /// Whether a vCPU can only be stopped when its ring is full, and rings are emptied once a period.
    pub whole_rings: bool,
    /// What its longest sleep leaves of the unlimited rate: 0.01 for the QEMU laws.
    pub cap_share: Option<f64>,
    /// The distance from the quota at which it no longer corrects, MiB/s: 25 for the QEMU laws.
    pub tolerance_mib_s: Option<f64>,
}

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
    /// Name of each vCPU's program.
    pub guests: Vec<String>,
    /// Entries of a vCPU's ring.
    pub ring_entries: u32,
    /// The measuring period as asked for.
    pub period: Duration,
    /// Memory that is dirtied, all vCPUs together.
    pub memory_mib: u64,
    /// What bounds the limiter.
    pub law: LawFacts,
    /// Where the measured part begins at the earliest; `None` leaves it to settling.
    pub measure_from_s: Option<f64>,
}

impl CellFacts {
    fn floor(&self) -> Option<MibPerSec> {
        let period = self.law.period.filter(|_| self.law.whole_rings)?;
        Pages(u64::from(self.ring_entries)).per(period)
    }
}

/// Sums up each vCPU of a cell that has samples, in the order of `facts.guests`. The pauses are on the clock of the
/// samples: `at` is 0 where `t_s` is.
pub fn summarize(facts: &CellFacts, samples: &[Sample], stalls: &[Stall]) -> Vec<Summary> {
    (0_u32..)
        .zip(&facts.guests)
        .filter_map(|(vcpu, guest)| {
            let own: Vec<&Sample> = samples.iter().filter(|sample| sample.vcpu == vcpu).collect();
            let stalls = stalls.iter().filter(|stall| stall.vcpu as u64 == u64::from(vcpu));
            if is_untold(&own) {
                let told = by_log(&own);
                let told: Vec<&Sample> = told.iter().collect();
                return summarize_vcpu(facts, vcpu, guest, &told, samples, stalls).map(untell);
            }
            summarize_vcpu(facts, vcpu, guest, &own, samples, stalls)
        })
        .collect()
}

fn summarize_vcpu<'a>(
    facts: &CellFacts,
    vcpu: u32,
    guest: &str,
    samples: &[&Sample],
    all: &[Sample],
    stalls: impl Iterator<Item = &'a Stall>,
) -> Option<Summary> {
    let last = *samples.last()?;
    let limited = Part::limited(samples);
    let rules = Rules::new(facts.law.period);
    let mut settling = Settling::new(rules, limited.start_s);
    for sample in limited.rows {
        settling.push(sample.t_s, sample.guest_mib_s);
    }
    let state = settling.state();
    let since_s = match state {
        State::Settled { since_s } => Some(since_s),
        _ => None,
    };

    let from_s = state.since_s().unwrap_or(f64::midpoint(limited.start_s, last.t_s));
    let measured = limited.from(facts.measure_from_s.unwrap_or(from_s));
    let read = measured.later(READING_LAG * facts.period.as_secs_f64());
    let binned = |part: &Part<'_>, value: fn(&Sample) -> f64| {
        let series = part.rows.iter().map(|row| (row.t_s, value(row)));
        Steady::of(&Windows::over(series, part.start_s, rules.window_s))
    };
    let truth = binned(&measured, |row| row.guest_mib_s);
    let reading = binned(&read, |row| row.ring_mib_s);
    let guest_mib_s = measured.rate(|row| row.written_pages);
    let ring_mib_s = read.mean(|row| row.ring_mib_s);
    let ring_median_mib_s = median_or(ring_mib_s, reading.median);

    // Without a warm-up the only unlimited rate there is may be the measured one.
    let unlimited = unlimited_rate(samples).or_else(|| last.quota_mib_s.is_none().then_some(guest_mib_s));
    let cap_floor = facts
        .law
        .cap_share
        .zip(unlimited)
        .map(|(share, unlimited)| share * unlimited);
    let floor = facts.floor().map(|floor| floor.0);
    let vm_guest_mib_s = rate_of_all(all, measured.start_s, last.t_s);
    // A vCPU that has no limit but the one of all together is judged by what all do.
    let shared = last.vm_quota_mib_s.filter(|_| last.quota_mib_s.is_none());
    let judgement = judge(&Evidence {
        quota: last.quota_mib_s.or(shared),
        unlimited: if shared.is_some() { None } else { unlimited },
        guest: if shared.is_some() { vm_guest_mib_s } else { guest_mib_s },
        // A reading stands until the next one, and QEMU 10 may take many periods to that: its mean keeps the first.
        ring: if shared.is_some() {
            vm_guest_mib_s
        } else {
            ring_median_mib_s
        },
        oscillation_pct: truth.oscillation_pct(),
        state,
        ring_full_a_period: measured.gain_per_s(|row| row.ring_full_exits) * facts.period.as_secs_f64(),
        floor,
        cap_floor,
        tolerance: facts.law.tolerance_mib_s,
    });

    let transient = since_s.map_or(settling.values(), |since_s| settling.values_before(since_s));
    let before = limited.base.map_or(0.0, |row| row.guest_mib_s);
    let error = last.quota_mib_s.map(|quota| guest_mib_s - quota);
    let pauses = Pauses::of(stalls, measured.start_s);

    Some(Summary {
        vcpu,
        guest: guest.to_owned(),
        quota_mib_s: last.quota_mib_s,
        unlimited_mib_s: unlimited.unwrap_or(f64::NAN),
        measured_s: measured.span_s(),
        ring_mib_s,
        ring_median_mib_s,
        ring_sd_mib_s: reading.sd,
        ring_ci_low_mib_s: reading.interval.low,
        ring_ci_high_mib_s: reading.interval.high,
        guest_mib_s,
        guest_median_mib_s: truth.median,
        guest_sd_mib_s: truth.sd,
        guest_ci_low_mib_s: truth.interval.low,
        guest_ci_high_mib_s: truth.interval.high,
        window_s: rules.window_s,
        guest_read_mib_s: measured.rate(|row| row.read_pages),
        utilisation_pct: measured.mean(|row| row.utilisation_pct),
        settle_s: since_s.map(|since_s| since_s - limited.start_s),
        overshoot_pct: overshoot_pct(transient, before, guest_mib_s),
        error_mib_s: error,
        error_pct: error.zip(last.quota_mib_s).map(|(error, quota)| 100.0 * error / quota),
        oscillation_pct: truth.oscillation_pct(),
        ring_full_per_s: measured.gain_per_s(|row| row.ring_full_exits),
        pauses: pauses.count(),
        stall_p50_us: pauses.length(0.5),
        stall_p99_us: pauses.length(0.99),
        stall_p999_us: pauses.length(0.999),
        stall_max_us: pauses.length(1.0),
        lateness_p50_us: pauses.lateness(0.5),
        lateness_p99_us: pauses.lateness(0.99),
        asked_us: measured.gain(|row| row.asked_us),
        slept_us: measured.gain(|row| row.slept_us),
        predicted_floor_mib_s: floor.unwrap_or(0.0),
        cap_floor_mib_s: cap_floor.unwrap_or(0.0),
        verdict: judgement.verdict,
        reason: if shared.is_some() {
            format!("all vCPUs together: {}", judgement.reason)
        } else {
            judgement.reason
        },
        vm_quota_mib_s: last.vm_quota_mib_s,
        vm_guest_mib_s: Some(vm_guest_mib_s),
        cost_pct: Some(measured.gain_per_s(|row| row.cost_us) / 1e6 * 100.0),
        ..settings(facts)
    })
}

/// A median, or the mean: a limiter that settles at once is measured for so short that no window of readings is whole.
fn median_or(mean: f64, median: f64) -> f64 {
    if median.is_nan() { mean } else { median }
}

/// The rate of all vCPUs together from `from_s` to `to_s`; the samples are in the order of their times.
fn rate_of_all(samples: &[Sample], from_s: f64, to_s: f64) -> f64 {
    let written = |at_s: f64| -> u64 {
        let until = samples.iter().filter(|row| row.t_s <= at_s + 1e-6);
        let last_of_each: BTreeMap<u32, u64> = until.map(|row| (row.vcpu, row.written_pages)).collect();
        last_of_each.values().sum()
    };
    let span = Duration::try_from_secs_f64(to_s - from_s).unwrap_or_default();
    let pages = Pages(written(to_s).saturating_sub(written(from_s)));
    pages.per(span).unwrap_or_default().0
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
        vcpus: facts.guests.len().try_into().unwrap_or(u32::MAX),
        memory_mib: facts.memory_mib,
        ..Summary::default()
    }
}

#[cfg(test)]
mod tests;
