//! The repetitions of each limiter put together: a row for each vCPU and phase.

use std::{collections::BTreeMap, time::Duration};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{LimiterSpec, law::LimiterKind};
use serde::Serialize;

use super::{
    judge::{Judged, judge, window_s},
    phase::{History, Subject, histories},
};
use crate::{
    model::{Sample, Spread, Summary},
    recording::{Recording, RecordingError, StallInterval, StallKind},
    scenario::rules,
};

/// One limiter, one vCPU (or all together), one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the limiter.
    pub limiter: String,
    /// Index of the vCPU; `None` for all together, under their common quota.
    pub vcpu: Option<u32>,
    /// What the vCPU ran; `None` for all together, and where that is not known.
    pub guest: Option<String>,
    /// Entries of a vCPU's ring; `None` where that is not known.
    pub ring_entries: Option<u32>,
    /// When the limit changed.
    pub at_s: f64,
    /// The limit; `None` without one.
    pub quota_mib_s: Option<f64>,
    /// How many repetitions there are.
    pub repetitions: usize,
    /// How many of them settled.
    pub settled: usize,
    /// Time to come near the quota and stay. Of a repetition that never did it is the length of the phase: at least that.
    pub settle_s: Option<Spread>,
    /// How far it went past the quota on the way, in percent.
    pub overshoot_pct: Option<Spread>,
    /// True rate of the steady part.
    pub rate_mib_s: Option<Spread>,
    /// Pages only read there, as a rate.
    pub read_mib_s: Option<Spread>,
    /// Distance from the quota in percent.
    pub error_pct: Option<Spread>,
    /// Longest pause in the steady part; empty where there was none.
    pub longest_stall_ms: Option<Spread>,
    /// What was written and read in percent of what was before any limit.
    pub of_unlimited_pct: Option<Spread>,
    /// CPU time of limiting in percent of one CPU.
    pub cost_pct: Option<Spread>,
    /// What the limiter can't hold less than, by its law: ring bytes / period, or what its longest sleep lets through; `None`
    /// of one that has no such bound.
    pub floor_mib_s: Option<f64>,
}

/// The phases of one cell, judged: of each vCPU, and of all together (`None`) where they have a common quota. `period` is
/// that of a limiter that acts once a period.
pub fn judged(samples: &[Sample], period: Option<Duration>) -> Vec<(Option<u32>, Vec<Judged>)> {
    let width_s = window_s(period, None);
    let of = |history: History| {
        let phases = history.phases.iter();
        let judged = phases.filter_map(|phase| judge(phase, history.unlimited, width_s));
        (history.subject.vcpu(), judged.collect())
    };
    histories(samples).into_iter().map(of).collect()
}

/// One phase of one repetition.
struct Found {
    judged: Judged,
    longest_stall_ms: Option<f64>,
}

/// Which row per phase belongs to: limiter by its place in the list, subject, phase.
type Place = (usize, Subject, usize);

/// The rows of a recording, by limiter in the order in which they are listed, vCPU and time.
pub fn rows(recording: &Recording) -> Result<Vec<Row>, RecordingError> {
    let stalls = recording.stalls()?;
    let mut cells: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
    for row in &recording.samples {
        cells.entry(row.cell).or_default().push(row.clone());
    }
    let mut places: BTreeMap<Place, (Row, Vec<Found>)> = BTreeMap::new();
    for (cell, samples) in &cells {
        let Some(summary) = recording.summaries.iter().find(|row| row.cell == *cell) else {
            continue;
        };
        let guest_cycle = guest_cycle(recording, *cell);
        for history in histories(samples) {
            for (index, phase) in history.phases.iter().enumerate() {
                let Some(judged) = judge(phase, history.unlimited, window_s(period(summary), guest_cycle)) else {
                    continue;
                };
                let own = |stall: &&StallInterval| match history.subject {
                    Subject::Vcpu(vcpu) => stall.vcpu == vcpu,
                    Subject::Vm => true,
                };
                let of_cell = stalls.iter().filter(|stall| stall.cell == *cell).filter(own);
                let found = Found {
                    judged,
                    longest_stall_ms: longest_ms(of_cell, judged.steady_from_s, judged.until_s),
                };
                let place = (order(&summary.limiter), history.subject, index);
                let entry = places
                    .entry(place)
                    .or_insert_with(|| (empty(recording, summary, history.subject, &judged), Vec::new()));
                entry.1.push(found);
            }
        }
    }
    Ok(places.into_values().map(|(row, found)| filled(row, &found)).collect())
}

fn kind(limiter: &str) -> Option<LimiterKind> {
    limiter.parse().ok()
}

fn order(limiter: &str) -> usize {
    let all = LimiterKind::ALL.iter().position(|kind| kind.name() == limiter);
    all.unwrap_or(LimiterKind::ALL.len())
}

/// The period of a limiter that acts once a period.
fn period(summary: &Summary) -> Option<Duration> {
    let period = Duration::from_millis(summary.period_ms);
    let spec = |kind| {
        let mut spec = LimiterSpec::new(kind);
        spec.period = period;
        spec
    };
    kind(&summary.limiter).map_or(Some(period), |kind| rules::law(spec(kind)).period)
}

/// How long the longest cycle of a cell's programs takes, of those that have one.
fn guest_cycle(recording: &Recording, cell: u32) -> Option<Duration> {
    let own = recording.summaries.iter().filter(|row| row.cell == cell);
    let programs = own.filter_map(|row| row.guest.as_deref()?.parse::<Program>().ok());
    programs.filter_map(|program| program.cycle()).max()
}

fn longest_ms<'a>(stalls: impl Iterator<Item = &'a StallInterval>, from_s: f64, until_s: f64) -> Option<f64> {
    // Times of intervals are kept to the millisecond.
    let within = stalls.filter(|stall| {
        let (start, end) = (stall.interval.start.as_secs_f64(), stall.interval.end.as_secs_f64());
        stall.kind == StallKind::Stall && start >= from_s - 2e-3 && end <= until_s + 2e-3
    });
    within.map(|stall| stall.histogram.max() as f64 / 1e6).reduce(f64::max)
}

fn empty(recording: &Recording, summary: &Summary, subject: Subject, judged: &Judged) -> Row {
    let vcpu = subject.vcpu();
    let own = recording
        .summaries
        .iter()
        .find(|row| row.cell == summary.cell && Some(row.vcpu) == vcpu);
    Row {
        limiter: summary.limiter.clone(),
        vcpu,
        guest: own.and_then(|row| row.guest.clone()),
        ring_entries: summary.ring_entries,
        at_s: (judged.at_s * 10.0).round() / 10.0,
        quota_mib_s: judged.quota_mib_s,
        repetitions: 0,
        settled: 0,
        settle_s: None,
        overshoot_pct: None,
        rate_mib_s: None,
        read_mib_s: None,
        error_pct: None,
        longest_stall_ms: None,
        of_unlimited_pct: None,
        cost_pct: None,
        floor_mib_s: [summary.predicted_floor_mib_s, summary.cap_floor_mib_s]
            .into_iter()
            .flatten()
            .reduce(f64::max),
    }
}

fn filled(row: Row, found: &[Found]) -> Row {
    let of = |value: &dyn Fn(&Found) -> Option<f64>| Spread::of(found.iter().map(value));
    let limited = row.quota_mib_s.is_some();
    Row {
        repetitions: found.len(),
        settled: found.iter().filter(|one| one.judged.settle_s.is_some()).count(),
        settle_s: of(&|one| {
            let lasted_s = one.judged.until_s - one.judged.at_s;
            one.judged.rate_mib_s.map(|_| one.judged.settle_s.unwrap_or(lasted_s))
        })
        .filter(|_| limited),
        overshoot_pct: of(&|one| one.judged.overshoot_pct).filter(|_| limited),
        rate_mib_s: of(&|one| one.judged.rate_mib_s),
        read_mib_s: of(&|one| one.judged.read_mib_s),
        error_pct: of(&|one| one.judged.error_pct),
        longest_stall_ms: of(&|one| one.longest_stall_ms),
        of_unlimited_pct: of(&|one| one.judged.of_unlimited_pct),
        cost_pct: of(&|one| one.judged.cost_pct),
        ..row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_with_its_range() {
        let spread = Spread::of([Some(3.0), Some(1.0), None, Some(10.0)]).expect("three values");
        assert_eq!((spread.median, spread.low, spread.high), (3.0, 1.0, 10.0));
        assert_eq!(Spread::of([None]), None);
    }

    #[test]
    fn only_limiters_that_act_once_a_period_have_one() {
        let row = |limiter: &str| Summary {
            limiter: limiter.to_owned(),
            period_ms: 500,
            ..Summary::default()
        };
        assert_eq!(period(&row("qemu-10")), Some(Duration::from_millis(500)));
        assert_eq!(period(&row("budget")), None);
    }
}
