//! Rows put into groups: repetitions into points with a spread, limiters into panels, samples into series.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use hdrhistogram::Histogram;

use crate::{
    model::{Sample, Spread, Summary, Verdict},
    recording::schema::OBSERVED,
};

/// Repetitions of the same measurement, put together.
pub(crate) struct Point<'a> {
    pub(crate) rows: Vec<&'a Summary>,
}

impl Point<'_> {
    pub(crate) fn ring(&self) -> Option<f64> {
        self.rows[0].ring_entries.map(f64::from)
    }

    pub(crate) fn quota(&self) -> Option<f64> {
        self.rows[0].quota_mib_s
    }

    /// What the guest's own counter says.
    pub(crate) fn truth(&self) -> Option<Spread> {
        self.spread(
            |row| row.guest_mib_s,
            |row| (row.guest_ci_low_mib_s, row.guest_ci_high_mib_s),
        )
    }

    /// What the limiter believes: its median reading. A reading stands until the next one, so that the mean, and its
    /// interval, keep one from before the limit for as long as a limiter takes to the next.
    pub(crate) fn reading(&self) -> Option<Spread> {
        self.of(|row| row.ring_median_mib_s)
    }

    /// The median of a column without an interval of its own, from its lowest to its highest repetition.
    pub(crate) fn of(&self, column: impl Fn(&Summary) -> Option<f64>) -> Option<Spread> {
        self.spread(&column, |row| (column(row), column(row)))
    }

    /// The verdict most repetitions agree on.
    pub(crate) fn verdict(&self) -> Verdict {
        self.rows
            .iter()
            .map(|row| row.verdict)
            .max_by_key(|verdict| self.rows.iter().filter(|row| row.verdict == *verdict).count())
            .expect("a point has at least one row")
    }

    /// Repetitions by their range; a single run by its own confidence interval.
    fn spread(
        &self,
        value: impl Fn(&Summary) -> Option<f64>,
        interval: impl Fn(&Summary) -> (Option<f64>, Option<f64>),
    ) -> Option<Spread> {
        let values: Vec<f64> = self.rows.iter().filter_map(|row| value(row)).collect();
        let middle = median(&values)?;
        if let [row] = self.rows[..] {
            let (low, high) = interval(row);
            return Some(Spread {
                median: middle,
                low: low.unwrap_or(middle).min(middle),
                high: high.unwrap_or(middle).max(middle),
            });
        }
        Some(Spread {
            median: middle,
            low: values.iter().copied().fold(middle, f64::min),
            high: values.iter().copied().fold(middle, f64::max),
        })
    }
}

/// Points that belong in one panel: one limiter under one set of conditions.
pub(crate) struct Facet<'a> {
    pub(crate) label: String,
    pub(crate) points: Vec<Point<'a>>,
}

/// Whether a panel has one measuring period or all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Periods {
    Apart,
    Together,
}

/// A rate or time as a key that sorts and compares exactly.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Exact(pub(crate) f64);

impl Eq for Exact {}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Puts rows into panels and points. A panel's label names the limiter, and of the other conditions those that vary.
pub(crate) fn facets<'a>(rows: impl IntoIterator<Item = &'a Summary>, periods: Periods) -> Vec<Facet<'a>> {
    let rows: Vec<_> = rows.into_iter().collect();
    let conditions = |row: &Summary| {
        [
            row.limiter.clone(),
            row.vmm.clone(),
            row.guest.clone().unwrap_or_else(|| "guest unknown".to_owned()),
            format!("{} {}", row.vcpus, plural(row.vcpus as usize, "vCPU")),
            row.memory_mib
                .map_or_else(|| "memory unknown".to_owned(), |mib| format!("{mib} MiB")),
        ]
    };
    let apart = |row: &Summary| (periods == Periods::Apart).then_some(row.period_ms);
    let all: BTreeSet<_> = rows.iter().map(|row| conditions(row)).collect();
    let varies: Vec<usize> = (0..5)
        .filter(|i| *i == 0 || all.iter().any(|a| all.iter().any(|b| a[*i] != b[*i])))
        .collect();
    let several_periods = rows.iter().filter_map(|row| apart(row)).collect::<BTreeSet<_>>().len() > 1;
    let mut groups: BTreeMap<_, BTreeMap<_, Vec<&Summary>>> = BTreeMap::new();
    for row in rows {
        let point = (row.ring_entries, row.period_ms, row.quota_mib_s.map(Exact));
        let facet = groups.entry((conditions(row), apart(row))).or_default();
        facet.entry(point).or_default().push(row);
    }
    groups
        .into_iter()
        .map(|((conditions, period), points)| {
            let mut names: Vec<String> = varies.iter().map(|i| conditions[*i].clone()).collect();
            names.extend(period.filter(|_| several_periods).map(|ms| format!("period {ms} ms")));
            Facet {
                label: names.join(", "),
                points: points.into_values().map(|rows| Point { rows }).collect(),
            }
        })
        .collect()
}

/// Says what a point and its bar are, in the words of a subtitle.
pub(crate) fn spread_note<'a>(points: impl IntoIterator<Item = &'a Point<'a>>) -> String {
    let counts: BTreeSet<usize> = points.into_iter().map(|point| point.rows.len()).collect();
    match (counts.first(), counts.last()) {
        (None, _) | (_, None) => String::new(),
        (Some(1), Some(1)) => "n = 1 run a point; bars: 95 % confidence interval within the run".to_owned(),
        (Some(least), Some(most)) if least == most => {
            format!("median of n = {most} runs; bars: lowest to highest")
        }
        (Some(least), Some(most)) => format!(
            "median of n = {least} to {most} runs; bars: lowest to highest (n = 1: 95 % confidence interval within the run)"
        ),
    }
}

/// One vCPU of one cell over time.
pub(crate) struct Series<'a> {
    pub(crate) cell: u32,
    pub(crate) vcpu: u32,
    /// In the order of time.
    pub(crate) samples: Vec<&'a Sample>,
    /// The row that sums it up, where the cell has ended.
    pub(crate) summary: Option<&'a Summary>,
}

/// Under what a row was measured, in words.
pub(crate) fn conditions(row: &Summary) -> String {
    if row.limiter == OBSERVED {
        // Nobody knows its quota and period, and not always its ring.
        return match row.ring_entries {
            None => OBSERVED.to_owned(),
            Some(entries) => format!("{OBSERVED}, ring {entries}"),
        };
    }
    let mib_s = |quota: f64| format!("{} MiB/s", super::axis::number(quota));
    let quota = match (row.quota_mib_s, row.vm_quota_mib_s) {
        (Some(own), _) => mib_s(own),
        (None, Some(all)) => format!("{} for all", mib_s(all)),
        (None, None) => "no quota".to_owned(),
    };
    format!(
        "{}, {}, {quota}, {} ms",
        row.limiter,
        ring_words(row.ring_entries),
        row.period_ms
    )
}

/// A ring by its size.
pub(crate) fn ring_words(entries: Option<u32>) -> String {
    entries.map_or_else(|| "ring unknown".to_owned(), |entries| format!("ring {entries}"))
}

impl Series<'_> {
    /// Which cell and conditions, for a panel's title.
    pub(crate) fn label(&self) -> String {
        let Some(row) = self.summary else {
            return format!("cell {}, vCPU {} (unfinished)", self.cell, self.vcpu);
        };
        let vcpu = if row.vcpus > 1 {
            format!(", vCPU {}", self.vcpu)
        } else {
            String::new()
        };
        format!("cell {}: {}{vcpu}", self.cell, conditions(row))
    }

    /// Where the quota changes, with the words for it.
    pub(crate) fn changes(&self) -> Vec<(f64, String)> {
        let quota = |sample: &Sample| sample.quota_mib_s;
        let words = |quota: Option<f64>| quota.map_or("cancelled".to_owned(), super::axis::number);
        self.samples
            .windows(2)
            .filter(|pair| quota(pair[0]) != quota(pair[1]))
            .map(|pair| (pair[1].t_s, words(quota(pair[1]))))
            .collect()
    }

    /// First and last time.
    pub(crate) fn span(&self) -> (f64, f64) {
        let at = |sample: Option<&&Sample>| sample.map_or(0.0, |s| s.t_s);
        (at(self.samples.first()), at(self.samples.last()))
    }
}

/// The samples of the chosen cells, a series a vCPU.
pub(crate) fn series<'a>(samples: &'a [Sample], summaries: &'a [Summary], cells: &BTreeSet<u32>) -> Vec<Series<'a>> {
    let mut groups: BTreeMap<(u32, u32), Vec<&Sample>> = BTreeMap::new();
    for sample in samples
        .iter()
        .filter(|row| cells.contains(&row.cell) && row.t_s.is_finite())
    {
        groups.entry((sample.cell, sample.vcpu)).or_default().push(sample);
    }
    groups
        .into_iter()
        .map(|((cell, vcpu), mut samples)| {
            samples.sort_by(|a, b| a.t_s.total_cmp(&b.t_s));
            let summary = summaries.iter().find(|row| row.cell == cell && row.vcpu == vcpu);
            Series {
                cell,
                vcpu,
                samples,
                summary,
            }
        })
        .collect()
}

/// The cells asked for, or at most `most`: the hardest ones, the lowest quotas on the largest rings, of every limiter in turn.
pub(crate) fn pick(samples: &[Sample], summaries: &[Summary], asked: &[u32], most: usize) -> BTreeSet<u32> {
    if !asked.is_empty() {
        return asked.iter().copied().collect();
    }
    let recorded: BTreeSet<u32> = samples.iter().map(|row| row.cell).collect();
    if recorded.len() <= most {
        return recorded;
    }
    let first = summaries.iter().map(|row| row.repetition).min();
    let finished: BTreeSet<_> = summaries
        .iter()
        .filter(|row| Some(row.repetition) == first && recorded.contains(&row.cell))
        .map(|row| {
            let quota = Exact(row.quota_mib_s.unwrap_or(f64::INFINITY));
            (quota, Reverse(row.ring_entries), &row.limiter, row.cell)
        })
        .collect();
    let mut cells = BTreeSet::new();
    for cell in finished.into_iter().map(|(.., cell)| cell).chain(recorded) {
        if cells.len() < most {
            cells.insert(cell);
        }
    }
    cells
}

/// The letter that stands for a verdict beside a point.
pub(crate) fn verdict_mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "",
        Verdict::FloorBound => "F",
        Verdict::ToleranceBound => "T",
        Verdict::CapBound => "C",
        Verdict::Missed => "M",
        Verdict::Oscillating => "O",
        Verdict::NotSettled => "N",
        Verdict::GuestTooSlow => "S",
        Verdict::Unlimited => "U",
        Verdict::Unknown => "?",
    }
}

/// A verdict in words.
pub(crate) fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::FloorBound => "floor-bound",
        Verdict::ToleranceBound => "tolerance-bound",
        Verdict::CapBound => "cap-bound",
        Verdict::Missed => "missed",
        Verdict::Oscillating => "oscillating",
        Verdict::NotSettled => "not settled",
        Verdict::GuestTooSlow => "guest too slow",
        Verdict::Unlimited => "unlimited",
        Verdict::Unknown => "unknown",
    }
}

/// The middle value, between the middle two of an even number.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Lowest and highest of the finite values.
pub(crate) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite()).fold(None, |range, v| {
        Some(range.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v))))
    })
}

/// Lowest and highest of the finite values above zero.
pub(crate) fn positive_range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    range(values.into_iter().filter(|v| *v > 0.0))
}

/// Adds `other` to `sum`, which grows where it has to.
pub(crate) fn merge(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.auto(true);
    sum.add(other).expect("a histogram that grows takes any other");
}

/// The noun, with an s where there is not one of it.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        noun.to_owned()
    } else {
        format!("{noun}s")
    }
}

/// Numbers in the shape `0-3, 7`.
pub(crate) fn spans(numbers: impl IntoIterator<Item = u32>) -> String {
    let sorted: Vec<u32> = numbers.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    sorted
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [one] => one.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cell: u32, limiter: &str, ring: u32, quota: f64, guest: f64) -> Summary {
        Summary {
            cell,
            limiter: limiter.to_owned(),
            ring_entries: Some(ring),
            period_ms: 1000,
            quota_mib_s: Some(quota),
            guest_mib_s: Some(guest),
            guest_ci_low_mib_s: Some(guest - 1.0),
            guest_ci_high_mib_s: Some(guest + 2.0),
            ..Summary::default()
        }
    }

    #[test]
    fn repetitions_become_a_median_with_their_range() {
        let rows = [20.0, 30.0, 22.0].map(|guest| row(0, "a", 4096, 25.0, guest));
        let facets = facets(&rows, Periods::Together);
        let [point] = &facets[0].points[..] else {
            panic!("one point")
        };
        assert_eq!(
            point.truth(),
            Some(Spread {
                median: 22.0,
                low: 20.0,
                high: 30.0
            })
        );
    }

    #[test]
    fn one_run_has_its_own_interval() {
        let rows = [row(0, "a", 4096, 25.0, 20.0)];
        let facets = facets(&rows, Periods::Together);
        assert_eq!(
            facets[0].points[0].truth(),
            Some(Spread {
                median: 20.0,
                low: 19.0,
                high: 22.0
            })
        );
    }

    #[test]
    fn a_panel_is_named_after_what_varies() {
        let rows = [row(0, "a", 4096, 25.0, 20.0), row(1, "b", 4096, 25.0, 20.0)];
        let labels: Vec<_> = facets(&rows, Periods::Apart).into_iter().map(|f| f.label).collect();
        assert_eq!(labels, ["a", "b"]);
        let mut slower = row(2, "a", 4096, 25.0, 20.0);
        slower.period_ms = 500;
        let labels: Vec<_> = facets([&rows[0], &slower], Periods::Apart)
            .into_iter()
            .map(|f| f.label)
            .collect();
        assert_eq!(labels, ["a, period 500 ms", "a, period 1000 ms"]);
    }

    #[test]
    fn the_hardest_cells_stand_for_the_others() {
        let rows = [
            row(0, "a", 4096, 1.0, 1.0),
            row(1, "a", 65536, 500.0, 1.0),
            row(2, "a", 65536, 1.0, 1.0),
        ];
        let samples: Vec<Sample> = (0..3)
            .map(|cell| Sample {
                cell,
                ..Sample::default()
            })
            .collect();
        assert_eq!(pick(&samples, &rows, &[], 1), BTreeSet::from([2]));
        assert_eq!(pick(&samples, &rows, &[], 2), BTreeSet::from([0, 2]));
        assert_eq!(pick(&samples, &rows, &[1], 2), BTreeSet::from([1]));
    }

    #[test]
    fn medians_and_spans() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(spans([7, 0, 1, 2, 1]), "0-2, 7");
    }
}
