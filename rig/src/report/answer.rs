//! The answer, a paragraph for each limiter: which quotas it held, what its floor is and why, and whether its own reading
//! shows it.

use std::collections::BTreeMap;

use super::{points::Point, rate::rate};
use crate::model::{Spread, Verdict};

/// How far a reading may lie from the guest's own rate before it is said to be off.
const OFF: f64 = 0.15;

/// What `points`, sorted by settings, say of each limiter.
pub(super) fn answers(points: &[Point]) -> Vec<String> {
    let limited: Vec<&Point> = points.iter().filter(|point| point.quota_mib_s.is_some()).collect();
    limited
        .chunk_by(|a, b| a.settings.limiter == b.settings.limiter)
        .map(|points| {
            let sentences = [Some(held(points)), floor(points), others(points), reading(points)];
            let text: Vec<String> = sentences.into_iter().flatten().collect();
            text.join(" ")
        })
        .collect()
}

/// Which quotas were held: everywhere, with some combinations of the other settings, or with none.
fn held(points: &[&Point]) -> String {
    let mut quotas: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for point in points {
        // Quotas are above zero, so that their bits sort as they do.
        let (held, asked) = quotas
            .entry(point.quota_mib_s.unwrap_or_default().to_bits())
            .or_default();
        *held += usize::from(point.held == point.runs);
        *asked += 1;
    }
    let of = |wanted: fn(usize, usize) -> bool| -> Vec<(f64, usize, usize)> {
        let found = quotas.iter().rev().filter(|&(_, &(held, asked))| wanted(held, asked));
        found
            .map(|(&bits, &(held, asked))| (f64::from_bits(bits), held, asked))
            .collect()
    };
    let names = |quotas: &[(f64, usize, usize)]| {
        let names: Vec<String> = quotas.iter().map(|(quota, ..)| rate(*quota)).collect();
        listed(&names)
    };
    let (all, none) = (of(|held, asked| held == asked), of(|held, _| held == 0));
    let some = of(|held, asked| held > 0 && held < asked);
    let combinations = quotas.values().map(|(_, asked)| *asked).max().unwrap_or(1);
    let everywhere = if combinations == 1 {
        String::new()
    } else {
        format!(" with each of {combinations} combinations of ring, period and guest")
    };
    let limiter = &points[0].settings.limiter;
    let mut text = match (all.is_empty(), some.is_empty()) {
        (false, _) => format!("{limiter} held {} MiB/s{everywhere}", names(&all)),
        (true, false) => format!("{limiter} held no quota with every combination"),
        (true, true) => return format!("{limiter} held none of its quotas ({} MiB/s).", names(&none)),
    };
    for (quota, held, asked) in some {
        text = format!("{text}, {} with {held} of {asked}", rate(quota));
    }
    if !none.is_empty() {
        text = format!("{text}, and {} with none", names(&none));
    }
    text + "."
}

/// What bounds it from below, where anything known does.
fn floor(points: &[&Point]) -> Option<String> {
    let ended = |verdict| -> Vec<&Point> {
        points
            .iter()
            .copied()
            .filter(|point| point.verdict == verdict)
            .collect()
    };
    let truth = |points: &[&Point]| spread(points.iter().filter_map(|point| middle(point.guest_mib_s)));
    let (ring, cap) = (ended(Verdict::FloorBound), ended(Verdict::CapBound));
    let by_ring = spread(ring.iter().filter_map(|point| point.predicted_floor_mib_s)).map(|floor| {
        let did = truth(&ring).map_or_else(String::new, |did| format!("; asked for less, the guest did {did}"));
        format!(
            "Its floor is ring bytes / period, for a vCPU sleeps only once its ring is full: {floor} MiB/s here{did}."
        )
    });
    let by_cap = truth(&cap).map(|did| format!("Its longest sleep still lets {did} MiB/s through."));
    let sentences: Vec<String> = [by_ring, by_cap].into_iter().flatten().collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// What else kept quotas from being held, with how many there are of each.
fn others(points: &[&Point]) -> Option<String> {
    const WHYS: [(Verdict, &str); 6] = [
        (
            Verdict::ToleranceBound,
            "stayed off the quota by less than the law acts on",
        ),
        (Verdict::Missed, "missed the quota without a bound that explains it"),
        (Verdict::Oscillating, "kept swinging"),
        (Verdict::NotSettled, "had not settled when time was up"),
        (Verdict::GuestTooSlow, "had a guest too slow for the limiter to act on"),
        (
            Verdict::Unknown,
            "can't be judged, as nobody knows what the guest dirtied",
        ),
    ];
    let whys: Vec<String> = WHYS
        .into_iter()
        .filter_map(|(verdict, why)| {
            let count = points.iter().filter(|point| point.verdict == verdict).count();
            (count > 0).then(|| format!("{count} {why}"))
        })
        .collect();
    let total = match points.len() {
        1 => "Of one setting".to_owned(),
        total => format!("Of {total} settings"),
    };
    (!whys.is_empty()).then(|| format!("{total}, {}.", listed(&whys)))
}

/// Whether what it reads is what the guest does; the worst case where not.
fn reading(points: &[&Point]) -> Option<String> {
    let off = |point: &&&Point| {
        let (reads, does) = (middle(point.ring_mib_s)?, middle(point.guest_mib_s)?);
        (reads > 0.0 && does > 0.0).then(|| ((reads / does).ln().abs(), reads, does))
    };
    let worst = points
        .iter()
        .filter_map(|point| Some((off(&point)?, point)))
        .max_by(|((a, ..), _), ((b, ..), _)| a.total_cmp(b));
    let ((distance, reads, does), point) = worst?;
    if distance <= (1.0 + OFF).ln() {
        return Some("Its reading agrees with the guest's rate.".to_owned());
    }
    Some(format!(
        "Its reading is off: {} MiB/s where the guest did {} (ring {}, period {} s, asked for {}).",
        rate(reads),
        rate(does),
        point.settings.ring_words(),
        point.settings.period_s(),
        point.quota_words()
    ))
}

fn middle(range: Option<Spread>) -> Option<f64> {
    range.map(|range| range.median).filter(|median| median.is_finite())
}

/// The lowest and the highest of some rates.
fn spread(rates: impl Iterator<Item = f64>) -> Option<String> {
    let rates: Vec<f64> = rates.collect();
    let low = rates.iter().copied().reduce(f64::min)?;
    let high = rates.iter().copied().reduce(f64::max)?;
    let (low, high) = (rate(low), rate(high));
    Some(if low == high { low } else { format!("{low} to {high}") })
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::points::points, *};
    use crate::model::Summary;

    fn row(ring: u32, quota: f64, verdict: Verdict, reads: f64, does: f64) -> Summary {
        Summary {
            vcpus: 1,
            limiter: "qemu-10".to_owned(),
            guest: Some("sequential".to_owned()),
            ring_entries: Some(ring),
            period_ms: 1000,
            quota_mib_s: Some(quota),
            predicted_floor_mib_s: Some(f64::from(ring) / 256.0),
            ring_median_mib_s: Some(reads),
            guest_mib_s: Some(does),
            verdict,
            ..Summary::default()
        }
    }

    #[test]
    fn quotas_floor_and_reading_are_one_paragraph() {
        let rows = [
            row(4096, 500.0, Verdict::Held, 500.0, 499.0),
            row(4096, 25.0, Verdict::Held, 25.0, 25.5),
            row(4096, 8.0, Verdict::FloorBound, 16.0, 15.0),
            row(65536, 500.0, Verdict::Held, 500.0, 498.0),
            row(65536, 25.0, Verdict::FloorBound, 255.0, 49.0),
            row(65536, 8.0, Verdict::Oscillating, 255.0, 60.0),
        ];
        assert_eq!(
            answers(&points(&rows)),
            [
                "qemu-10 held 500 MiB/s with each of 2 combinations of ring, period and guest, 25 with 1 of 2, and 8 with none. \
              Its floor is ring bytes / period, for a vCPU sleeps only once its ring is full: 16 to 256 MiB/s here; asked for \
              less, the guest did 15 to 49. Of 6 settings, 1 kept swinging. Its reading is off: 255 MiB/s where \
              the guest did 49 (ring 65536, period 1 s, asked for 25)."
            ]
        );
    }

    #[test]
    fn what_held_everything_has_no_floor_to_tell_of() {
        let rows = [row(4096, 25.0, Verdict::Held, 25.0, 25.5)];
        assert_eq!(
            answers(&points(&rows)),
            ["qemu-10 held 25 MiB/s. Its reading agrees with the guest's rate."]
        );
        let rows = [row(4096, 25.0, Verdict::Missed, 45.0, 45.5)];
        assert_eq!(
            answers(&points(&rows)),
            [
                "qemu-10 held none of its quotas (25 MiB/s). Of one setting, 1 missed the quota without a bound that explains it. Its \
              reading agrees with the guest's rate."
            ]
        );
        assert_eq!(answers(&[]), Vec::<String>::new());
    }
}
