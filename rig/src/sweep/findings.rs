//! What a sweep found about floors, in words: ring bytes / period against what was read and what was true.

use crate::{
    analysis::stats,
    model::{Summary, Verdict},
};

/// Cells of one limiter, ring, period and quota whose quota lies below the predicted floor.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// The limiter.
    pub limiter: String,
    /// Entries of the ring.
    pub ring_entries: u32,
    /// The period in ms.
    pub period_ms: u64,
    /// The quota asked for.
    pub quota_mib_s: f64,
    /// Ring bytes / period.
    pub predicted_mib_s: f64,
    /// Median over cells of what the cap of the throttle lets through; `None` where the limiter has no cap.
    pub cap_mib_s: Option<f64>,
    /// Median over cells of the limiter's median reading: its mean takes in the reading of the period before the limit,
    /// which stands until the next one.
    pub ring_mib_s: Option<f64>,
    /// Median over cells of the rate by the guest's own counter; `None` of a guest that keeps none.
    pub guest_mib_s: Option<f64>,
    /// Whether the guest was too slow for the limiter ever to act.
    pub too_slow: bool,
}

impl Floor {
    fn sentence(&self) -> String {
        let Self {
            limiter,
            ring_entries,
            quota_mib_s,
            predicted_mib_s,
            cap_mib_s,
            ring_mib_s,
            guest_mib_s,
            ..
        } = self;
        let period_s = self.period_ms as f64 / 1000.0;
        let head = format!("{limiter}, ring {ring_entries}, period {period_s} s, asked for {quota_mib_s}:");
        if self.too_slow {
            let does = guest_mib_s.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.0}"));
            return format!("{head} the ring is never full within a period, so that nothing is limited ({does})");
        }
        let cap = match cap_mib_s {
            Some(cap) if !self.tells_ring_from_cap() => {
                format!("; the cap alone lets {cap:.0} through, too near to tell the two apart")
            }
            _ => String::new(),
        };
        let rate = |rate: &Option<f64>| {
            rate.map_or_else(
                || "unknown".to_owned(),
                |rate| format!("{rate:.0} ({})", signed_pct(rate, *predicted_mib_s)),
            )
        };
        format!(
            "{head} reads {}, truly {}, predicted {predicted_mib_s:.0}{cap}",
            rate(ring_mib_s),
            rate(guest_mib_s)
        )
    }

    /// Whether the rate is bounded by the ring and not by the cap as well. At twice the cap's rate the longest sleep lasts
    /// two periods, and every one of them is cut short by the kick; below it some are not, and more than a ring gets
    /// through in a period.
    fn tells_ring_from_cap(&self) -> bool {
        self.cap_mib_s.is_none_or(|cap| self.predicted_mib_s >= 2.0 * cap)
    }
}

/// The floors that `summaries` show, by limiter, ring and period.
pub fn floors(summaries: &[Summary]) -> Vec<Floor> {
    // Quotas are above zero, so that their bits sort as they do.
    let key = |row: &Summary| {
        let quota = row.quota_mib_s?;
        let floor = row.predicted_floor_mib_s.filter(|&floor| quota < floor)?;
        let of = (row.limiter.clone(), row.ring_entries?, row.period_ms, quota.to_bits());
        Some((of, quota, floor))
    };
    let mut rows: Vec<_> = summaries.iter().filter_map(|row| Some((key(row)?, row))).collect();
    rows.sort_by(|((a, ..), _), ((b, ..), _)| a.cmp(b));
    rows.chunk_by(|((a, ..), _), ((b, ..), _)| a == b)
        .map(|rows| {
            let ((limiter, ring_entries, period_ms, _), quota_mib_s, predicted_mib_s) = rows[0].0.clone();
            let median = |value: fn(&Summary) -> Option<f64>| {
                let known: Vec<f64> = rows.iter().filter_map(|(_, row)| value(row)).collect();
                (!known.is_empty()).then(|| stats::median(&known))
            };
            Floor {
                limiter,
                ring_entries,
                period_ms,
                quota_mib_s,
                predicted_mib_s,
                cap_mib_s: median(|row| row.cap_floor_mib_s),
                ring_mib_s: median(|row| row.ring_median_mib_s),
                guest_mib_s: median(|row| row.guest_mib_s),
                too_slow: rows.iter().any(|(_, row)| is_too_slow(row, predicted_mib_s)),
            }
        })
        .collect()
}

/// Whether the ring can't be full within a period, so that a cell says nothing of the floor. One ring that filled up
/// before the limiter began to flush may hide it from the verdict.
fn is_too_slow(row: &Summary, floor: f64) -> bool {
    row.verdict == Verdict::GuestTooSlow || row.unlimited_mib_s.is_some_and(|unlimited| unlimited <= floor)
}

/// The findings in words, a line each; none where no quota was below its floor.
pub fn sentences(summaries: &[Summary]) -> Vec<String> {
    let floors = floors(summaries);
    let lines = floors.iter().map(Floor::sentence);
    lines.chain(concluded(&floors)).collect()
}

fn concluded(floors: &[Floor]) -> Vec<String> {
    let shown: Vec<&Floor> = floors
        .iter()
        .filter(|floor| !floor.too_slow && floor.tells_ring_from_cap())
        .collect();
    shown.chunk_by(|a, b| a.limiter == b.limiter).map(conclusion).collect()
}

/// How far rates may lie from the prediction to be said to follow it.
const FOLLOWS_PCT: f64 = 15.0;

fn conclusion(floors: &[&Floor]) -> String {
    let worst = |value: fn(&Floor) -> Option<f64>| {
        let off = |floor: &&Floor| Some(100.0 * (value(floor)? / floor.predicted_mib_s - 1.0).abs());
        floors.iter().filter_map(off).reduce(f64::max)
    };
    // A prediction that is judged by what is printed: to the whole percent.
    let says = |worst_pct: Option<f64>| match worst_pct.map(f64::round) {
        Some(worst_pct) if worst_pct <= FOLLOWS_PCT => format!("follows ring bytes / period within {worst_pct:.0} %"),
        Some(worst_pct) => format!("does not follow ring bytes / period (up to {worst_pct:.0} % off)"),
        None => "is not known".to_owned(),
    };
    format!(
        "{}: over {} point{} below the floor, its reading {}; the guest's rate {}",
        floors[0].limiter,
        floors.len(),
        if floors.len() == 1 { "" } else { "s" },
        says(worst(|floor| floor.ring_mib_s)),
        says(worst(|floor| floor.guest_mib_s)),
    )
}

fn signed_pct(value: f64, reference: f64) -> String {
    format!("{:+.0} %", 100.0 * (value / reference - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(limiter: &str, ring: u32, quota: f64, ring_mib_s: f64, guest_mib_s: f64) -> Summary {
        Summary {
            limiter: limiter.to_owned(),
            ring_entries: Some(ring),
            period_ms: 1000,
            quota_mib_s: Some(quota),
            predicted_floor_mib_s: Some(f64::from(ring) / 256.0),
            unlimited_mib_s: Some(1700.0),
            ring_median_mib_s: Some(ring_mib_s),
            guest_mib_s: Some(guest_mib_s),
            verdict: Verdict::FloorBound,
            ..Summary::default()
        }
    }

    #[test]
    fn only_quotas_below_the_floor_tell_of_it_and_repetitions_are_one_finding() {
        let rows = [
            row("qemu-7.2", 65536, 25.0, 250.0, 240.0),
            row("qemu-7.2", 65536, 25.0, 256.0, 250.0),
            row("qemu-7.2", 65536, 25.0, 300.0, 260.0),
            row("qemu-7.2", 65536, 500.0, 500.0, 500.0),
        ];
        let floors = floors(&rows);
        assert_eq!(floors.len(), 1);
        assert_eq!(
            (floors[0].ring_mib_s, floors[0].guest_mib_s),
            (Some(256.0), Some(250.0))
        );
    }

    #[test]
    fn reading_and_truth_are_told_apart() {
        let rows = [
            row("qemu-10", 65536, 25.0, 255.0, 18.0),
            row("qemu-7.2", 65536, 25.0, 255.0, 247.0),
        ];
        let text = sentences(&rows).join("\n");
        assert!(
            text.contains("qemu-10, ring 65536, period 1 s, asked for 25: reads 255 (-0 %), truly 18 (-93 %)"),
            "{text}"
        );
        assert!(
            text.contains("the guest's rate does not follow ring bytes / period (up to 93 % off)"),
            "{text}"
        );
        assert!(
            text.contains("qemu-7.2: over 1 point below the floor, its reading follows"),
            "{text}"
        );
    }

    #[test]
    fn a_floor_near_the_cap_is_no_evidence() {
        let mut near = row("qemu-7.2", 4096, 2.0, 21.0, 22.0);
        near.cap_floor_mib_s = Some(16.0);
        let lines = sentences(&[near]);
        assert_eq!(lines.len(), 1, "no conclusion: {lines:?}");
        assert!(
            lines[0].ends_with("the cap alone lets 16 through, too near to tell the two apart"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_guest_too_slow_is_no_evidence() {
        let mut slow = row("qemu-7.2", 65536, 25.0, 170.0, 175.0);
        slow.verdict = Verdict::GuestTooSlow;
        let lines = sentences(&[slow.clone()]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("never full within a period"), "{lines:?}");
        slow.verdict = Verdict::Missed;
        slow.unlimited_mib_s = Some(200.0);
        assert_eq!(sentences(&[slow]), lines, "whatever the verdict made of it");
    }
}
