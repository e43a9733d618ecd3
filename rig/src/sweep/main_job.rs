//! The sweep when nothing was asked for: reproduce the published finding, in about six minutes, on whatever host.
//!
//! Published: at a period of 1 s the lowest quota held is 25 MiB/s with ring 4096 and 256 MiB/s with ring 65536. The
//! reason is that a vCPU meets a ring-full exit, and so a sleep, only if it fills its ring within one period; the floor
//! is ring bytes / period. A host on which one vCPU can't dirty 256 MiB/s at all can't show the second point. It can
//! show the same mechanism at smaller rings or longer periods, whose floors lie within its reach.

use std::time::Duration;

use dirtyrig_limiter::{law::LimiterKind, units::Quota};

use super::{estimate::Estimate, plan::Plan};
use crate::scenario::{
    End, Scenario, ScenarioError,
    per_vcpu::{MaybeQuota, PerVcpu},
    settings::{Repetitions, Settings},
    spec::predicted_floor_mib_s,
    values::{Period, Ring},
};

/// How long the main job may take.
const BUDGET: Duration = Duration::from_mins(5);

/// Share of the unlimited rate up to which a limiter's floor can be told from no limit at all: above it the ring takes
/// most of the period to fill, and a slow moment of the host lets the period end first. Under v11 the background reaper
/// empties the rings once more in each period, at a time that is left to chance, which halves what can be reached.
fn reach(limiter: LimiterKind) -> f64 {
    if limiter == LimiterKind::QemuV11 { 0.4 } else { 0.8 }
}

/// The quota of the letter, and the most that is asked for below a floor.
const PUBLISHED_QUOTA: f64 = 25.0;

/// The limiters whose floors are compared, the one to begin with first.
const LIMITERS: [LimiterKind; 3] = [LimiterKind::Qemu72, LimiterKind::Qemu10, LimiterKind::QemuV11];

/// A ring and a period.
type Point = (u32, u64);

/// The published points: entries, and period in ms.
const PUBLISHED: [Point; 2] = [(65536, 1000), (4096, 1000)];

/// Other points of the same law, in the order in which they are worth having.
const OTHERS: [Point; 13] = [
    (16384, 1000),
    (4096, 1000),
    (65536, 2000),
    (16384, 500),
    (32768, 1000),
    (32768, 500),
    (8192, 500),
    (8192, 1000),
    (65536, 500),
    (16384, 2000),
    (32768, 2000),
    (4096, 500),
    (65536, 4000),
];

/// The plan for a host on which one vCPU dirties `unlimited_mib_s`. `base` says what else was asked for.
pub fn plan(unlimited_mib_s: f64, base: &Settings, seed: u64) -> Result<Plan, ScenarioError> {
    let reachable = |point, limiter| floor(point) <= reach(limiter) * unlimited_mib_s;
    let mut cells = Vec::new();
    for point in PUBLISHED {
        for limiter in LIMITERS {
            // Where the ring is never full no limiter acts, and one shows it for all of them.
            if limiter == LIMITERS[0] || reachable(point, limiter) {
                cells.push(settings(base, point, limiter, PUBLISHED_QUOTA));
            }
        }
    }
    let repetitions = base.repetitions.map_or(1, Repetitions::get) as u32;
    let cost = |settings: &Settings| {
        Scenario::new(settings, seed, End::WhenMeasured).map(|scenario| Estimate::of(&scenario).typical * repetitions)
    };
    let mut spent = cells.iter().map(cost).sum::<Result<Duration, _>>()?;
    let mut others: Vec<Point> = Vec::new();
    for point in OTHERS {
        for limiter in LIMITERS.into_iter().filter(|&limiter| reachable(point, limiter)) {
            let cell = settings(base, point, limiter, below(point));
            let cost = cost(&cell)?;
            if spent + cost <= BUDGET {
                spent += cost;
                cells.push(cell);
                if !PUBLISHED.contains(&point) && !others.contains(&point) {
                    others.push(point);
                }
            }
        }
    }
    Plan::of(
        cells,
        base.repetitions,
        seed,
        remarks(
            unlimited_mib_s,
            &PUBLISHED.map(|point| (point, reachable(point, LIMITERS[0]))),
            &others,
        ),
    )
}

fn floor((entries, period_ms): Point) -> f64 {
    predicted_floor_mib_s(ring(entries).0, Duration::from_millis(period_ms))
}

fn ring(entries: u32) -> Ring {
    Ring::new(entries).expect("the points have sizes that rings can have")
}

fn settings(base: &Settings, point: Point, limiter: LimiterKind, quota_mib_s: f64) -> Settings {
    let (entries, period_ms) = point;
    let quota = Quota::new(quota_mib_s).expect("floors are above zero");
    Settings {
        ring: vec![ring(entries)],
        period: vec![Period::new(Duration::from_millis(period_ms)).expect("the points have periods in range")],
        limiter: vec![limiter],
        quota: vec![PerVcpu::all(MaybeQuota(Some(quota)))],
        ..base.clone()
    }
}

/// A quota well below the floor of a point. Where the floor leaves room, it is further from it than the 25 MiB/s within
/// which QEMU's laws make no adjustment.
fn below(point: Point) -> f64 {
    (floor(point) / 8.0).min(PUBLISHED_QUOTA)
}

fn remarks(unlimited_mib_s: f64, published: &[(Point, bool)], others: &[Point]) -> Vec<String> {
    let mut remarks = vec![format!(
        "one vCPU dirties {unlimited_mib_s:.0} MiB/s here when nothing limits it"
    )];
    for &(point, _) in published.iter().filter(|(_, reachable)| !reachable) {
        let (entries, period_ms) = point;
        let fill_s = f64::from(entries) / 256.0 / unlimited_mib_s;
        remarks.push(format!(
            "the published floor of {:.0} MiB/s can't show here: ring {entries} takes {fill_s:.2} s to fill at that rate, \
             too much of a period of {} s, and a limiter acts only on a full ring; {}",
            floor(point),
            period_ms as f64 / 1000.0,
            shown_instead(others)
        ));
    }
    remarks
}

/// Where the law shows on a host that can't reach a published point.
fn shown_instead(others: &[Point]) -> String {
    if others.is_empty() {
        return "this host is too slow for any other point of the same law".to_owned();
    }
    let named: Vec<String> = others
        .iter()
        .map(|&point| {
            let (entries, period_ms) = point;
            format!(
                "ring {entries} with a period of {} s (floor {:.0})",
                period_ms as f64 / 1000.0,
                floor(point)
            )
        })
        .collect();
    format!("shown instead, by the same law: {}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_for(unlimited_mib_s: f64) -> Plan {
        plan(unlimited_mib_s, &Settings::default(), 1).expect("a plan")
    }

    fn points(plan: &Plan) -> Vec<(u32, Duration, LimiterKind)> {
        let key = |settings: &Settings| {
            (
                settings.ring[0].0.entries(),
                settings.period[0].length(),
                settings.limiter[0],
            )
        };
        plan.cells.iter().map(|cell| key(&cell.settings)).collect()
    }

    fn typical(plan: &Plan) -> Duration {
        plan.cells
            .iter()
            .map(|cell| Estimate::of(&cell.scenario().expect("a valid cell")))
            .sum::<Estimate>()
            .typical
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_fast_host_shows_the_published_points_with_every_limiter() {
        let plan = plan_for(1700.0);
        for limiter in LIMITERS {
            for entries in [4096, 65536] {
                assert!(
                    points(&plan).contains(&(entries, SECOND, limiter)),
                    "{limiter}, ring {entries}"
                );
            }
        }
        assert_eq!(plan.remarks.len(), 1);
    }

    #[test]
    fn a_slow_host_shows_the_law_within_its_reach() {
        let plan = plan_for(175.0);
        let points = points(&plan);
        assert!(
            points.contains(&(65536, SECOND, LimiterKind::Qemu72)),
            "the published point is tried all the same"
        );
        assert!(points.contains(&(16384, SECOND, LimiterKind::QemuV11)));
        assert!(points.contains(&(65536, 2 * SECOND, LimiterKind::Qemu72)));
        assert!(plan.remarks[1].contains("takes 1.46 s to fill"), "{:?}", plan.remarks);
        assert!(
            plan.remarks[1].contains("shown instead, by the same law: ring 16384 with a period of 1 s (floor 64)"),
            "{:?}",
            plan.remarks
        );
        let nothing = plan_for(1.0);
        assert!(
            nothing.remarks[1].ends_with("too slow for any other point of the same law"),
            "{:?}",
            nothing.remarks
        );
    }

    #[test]
    fn it_takes_about_five_minutes_on_every_host() {
        for unlimited in [20.0, 60.0, 175.0, 400.0, 1700.0, 10_000.0] {
            let typical = typical(&plan_for(unlimited));
            assert!(typical <= BUDGET, "{unlimited}: {typical:?}");
            assert!(
                unlimited < 100.0 || typical >= BUDGET * 4 / 5,
                "{unlimited}: {typical:?}"
            );
        }
    }

    #[test]
    fn quotas_lie_out_of_the_tolerance_below_the_floor() {
        // The floor of the published small ring is itself within the tolerance of any quota below it.
        for point in OTHERS.into_iter().filter(|point| !PUBLISHED.contains(point)) {
            assert!(floor(point) - below(point) > 25.0, "{point:?}");
        }
    }
}
