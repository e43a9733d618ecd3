//! Rows put together: repetitions into points, and points of several
//! recordings side by side.

use std::collections::BTreeMap;

use serde::Serialize;

use super::rate::rate;
use crate::model::{Spread, Summary, Verdict};

/// What tells points apart: everything of a row that was asked for, but the quota.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Settings {
    /// Name of the limiter.
    pub limiter: String,
    /// Size of a vCPU's dirty ring; none where that is not known.
    pub ring_entries: Option<u32>,
    /// The limiter's measuring period.
    pub period_ms: u64,
    /// What the vCPU executes; none of a guest that is not ours.
    pub guest: Option<String>,
    /// vCPUs of the cell.
    pub vcpus: u32,
    /// Memory that is dirtied; none of a guest that is not ours.
    pub memory_mib: Option<u64>,
    /// VMM with its version.
    pub vmm: String,
}

/// All runs of the same settings and quota: repetitions, and vCPUs that were asked for the same.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The settings.
    #[serde(flatten)]
    pub settings: Settings,
    /// The quota; none for an unlimited vCPU.
    pub quota_mib_s: Option<f64>,
    /// The quota of all vCPUs together; none where they have none.
    pub vm_quota_mib_s: Option<f64>,
    /// How many runs of a vCPU there are.
    pub runs: usize,
    /// How many of them held the quota.
    pub held: usize,
    /// How many of them the machine disturbed.
    pub disturbed: usize,
    /// The verdict that most of them have.
    pub verdict: Verdict,
    /// The reason of the first run with that verdict.
    pub reason: String,
    /// Ring bytes / period; none for a limiter without that floor.
    pub predicted_floor_mib_s: Option<f64>,
    /// Rate without a limit.
    pub unlimited_mib_s: Option<Spread>,
    /// What the limiter reads: its median reading of each run.
    pub ring_mib_s: Option<Spread>,
    /// What the guest does.
    pub guest_mib_s: Option<Spread>,
    /// 99th percentile of the pauses; none where there were no pauses.
    pub stall_p99_us: Option<Spread>,
    /// Settle time of the runs that settled.
    pub settle_s: Option<Spread>,
}

/// The same settings and quota in several recordings.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The settings.
    #[serde(flatten)]
    pub settings: Settings,
    /// The quota; none for unlimited vCPUs.
    pub quota_mib_s: Option<f64>,
    /// The quota of all vCPUs together; none where they have none.
    pub vm_quota_mib_s: Option<f64>,
    /// The point of each recording that has it, with that recording's name.
    pub points: Vec<(String, Point)>,
}

impl Settings {
    /// The period in seconds.
    pub fn period_s(&self) -> f64 {
        self.period_ms as f64 / 1000.0
    }

    /// The guest, and how many vCPUs it has where it is not one.
    pub fn guest_words(&self) -> String {
        let guest = self.guest.as_deref().unwrap_or("-");
        if self.vcpus == 1 {
            guest.to_owned()
        } else {
            format!("{guest} ({} vCPUs)", self.vcpus)
        }
    }

    /// The ring's size.
    pub fn ring_words(&self) -> String {
        self.ring_entries
            .map_or_else(|| "-".to_owned(), |entries| entries.to_string())
    }
}

impl Point {
    /// What was asked for: of each vCPU, of all together, or nothing.
    pub fn quota_words(&self) -> String {
        match (self.quota_mib_s, self.vm_quota_mib_s) {
            (None, None) => "none".to_owned(),
            (Some(one), None) => rate(one),
            (None, Some(all)) => format!("{} for all", rate(all)),
            (Some(one), Some(all)) => format!("{}, {} for all", rate(one), rate(all)),
        }
    }
}

/// Settings, then a vCPU's quota, then that of all together; an unlimited one comes last.
type Key = (Settings, u64, u64);

/// Quotas are above zero, so that their bits sort as they do.
fn sortable(quota_mib_s: Option<f64>) -> u64 {
    quota_mib_s.map_or(u64::MAX, f64::to_bits)
}

fn key(row: &Summary) -> Key {
    let settings = Settings {
        limiter: row.limiter.clone(),
        ring_entries: row.ring_entries,
        period_ms: row.period_ms,
        guest: row.guest.clone(),
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        vmm: row.vmm.clone(),
    };
    (settings, sortable(row.quota_mib_s), sortable(row.vm_quota_mib_s))
}

/// The points of `rows`, sorted by their settings and quota.
pub fn points(rows: &[Summary]) -> Vec<Point> {
    let mut groups: BTreeMap<Key, Vec<&Summary>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
        .into_iter()
        .map(|((settings, ..), rows)| point(settings, &rows))
        .collect()
}

fn point(settings: Settings, rows: &[&Summary]) -> Point {
    let count = |wanted: Verdict| rows.iter().filter(|row| row.verdict == wanted).count();
    let common = rows
        .iter()
        .rev()
        .max_by_key(|row| count(row.verdict))
        .expect("a point has at least one row");
    let range = |column: fn(&Summary) -> Option<f64>| Spread::of(rows.iter().map(|row| column(row)));
    Point {
        settings,
        quota_mib_s: common.quota_mib_s,
        vm_quota_mib_s: common.vm_quota_mib_s,
        runs: rows.len(),
        held: count(Verdict::Held),
        disturbed: rows.iter().filter(|row| !row.disturbed.is_empty()).count(),
        verdict: common.verdict,
        reason: common.reason.clone(),
        predicted_floor_mib_s: common.predicted_floor_mib_s,
        unlimited_mib_s: range(|row| row.unlimited_mib_s),
        ring_mib_s: range(|row| row.ring_median_mib_s),
        guest_mib_s: range(|row| row.guest_mib_s),
        stall_p99_us: range(|row| row.stall_p99_us),
        settle_s: range(|row| row.settle_s),
    }
}

/// What more than one of the recordings has measured, of their names and points.
pub fn compare<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [Point])>) -> Vec<Compared> {
    let mut shared: BTreeMap<Key, Vec<(String, Point)>> = BTreeMap::new();
    for (name, points) in parts {
        for point in points {
            let key = (
                point.settings.clone(),
                sortable(point.quota_mib_s),
                sortable(point.vm_quota_mib_s),
            );
            shared.entry(key).or_default().push((name.to_owned(), point.clone()));
        }
    }
    shared
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .map(|((settings, ..), points)| Compared {
            settings,
            quota_mib_s: points[0].1.quota_mib_s,
            vm_quota_mib_s: points[0].1.vm_quota_mib_s,
            points,
        })
        .collect()
}
