//! Points put together into the lowest rate of each limiter and ring.

use serde::Serialize;

use super::{
    points::{Point, Settings},
    rate::rate,
};
use crate::model::{Spread, Verdict};

/// The lowest rate of one limiter and ring.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// The settings.
    #[serde(flatten)]
    pub settings: Settings,
    /// Ring bytes / period; none for a limiter without that floor.
    pub predicted_floor_mib_s: Option<f64>,
    /// The lowest quota that every run held.
    pub lowest_held_mib_s: Option<f64>,
    /// The lowest quota that was asked for.
    pub lowest_asked_mib_s: f64,
    /// The verdict there.
    pub verdict: Verdict,
    /// What the limiter reads there.
    pub ring_mib_s: Option<Spread>,
    /// What the guest does there.
    pub guest_mib_s: Option<Spread>,
    /// All this in words.
    pub words: String,
}

/// The lowest rate of each limiter and ring; `points` are sorted by settings and quota.
pub fn floors(points: &[Point]) -> Vec<Floor> {
    let limited: Vec<&Point> = points.iter().filter(|point| point.quota_mib_s.is_some()).collect();
    limited
        .chunk_by(|a, b| a.settings == b.settings)
        .filter_map(|points| {
            let lowest = points[0];
            let lowest_asked_mib_s = lowest.quota_mib_s?;
            let lowest_held = points.iter().find(|point| point.held == point.runs);
            Some(Floor {
                settings: lowest.settings.clone(),
                predicted_floor_mib_s: lowest.predicted_floor_mib_s,
                lowest_held_mib_s: lowest_held.and_then(|point| point.quota_mib_s),
                lowest_asked_mib_s,
                verdict: lowest.verdict,
                ring_mib_s: lowest.ring_mib_s,
                guest_mib_s: lowest.guest_mib_s,
                words: words(points),
            })
        })
        .collect()
}

/// What one limiter and ring did, from the points of all quotas in ascending order.
fn words(points: &[&Point]) -> String {
    let lowest = points[0];
    let quota = |point: &Point| point.quota_words();
    let middle = |range: Option<Spread>| range.map_or_else(|| "an unknown rate".to_owned(), |range| rate(range.median));
    let held: Vec<String> = points.iter().filter(|p| p.held == p.runs).map(|p| quota(p)).collect();
    let partly: Vec<String> = points
        .iter()
        .filter(|p| p.held > 0 && p.held < p.runs)
        .map(|p| format!("{} in {} of {} runs", quota(p), p.held, p.runs))
        .collect();
    let mut sentence = match &held[..] {
        [] if partly.is_empty() => "Held nothing".to_owned(),
        [] => format!("Held {}", partly.join(", ")),
        all => format!(
            "Held {}",
            all.iter().cloned().chain(partly).collect::<Vec<_>>().join(", ")
        ),
    };
    if lowest.held < lowest.runs {
        sentence = format!(
            "{sentence}. Asked for {} the guest does {}: {}",
            quota(lowest),
            middle(lowest.guest_mib_s),
            lowest.reason
        );
    }
    sentence + "."
}
