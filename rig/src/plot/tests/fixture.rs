//! Made-up recordings in the shape of real ones, to draw in tests. Nothing here was measured.

use hdrhistogram::Histogram;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::{
    model::{Sample, Summary, Verdict},
    plot::{RecordingView, Stalls},
};

pub(crate) struct Made {
    pub(crate) samples: Vec<Sample>,
    pub(crate) summaries: Vec<Summary>,
    pub(crate) stalls: Vec<Stalls>,
}

impl Made {
    pub(crate) fn view(&self) -> RecordingView<'_> {
        RecordingView {
            title: "made-up sweep",
            machine: "No Machine 8000, 2 CPUs, Linux 0.0, nested kvm",
            samples: &self.samples,
            summaries: &self.summaries,
            stalls: &self.stalls,
        }
    }
}

/// What is to be made: every combination is a cell.
pub(crate) struct Recipe<'a> {
    pub(crate) limiters: &'a [&'a str],
    pub(crate) rings: &'a [u32],
    pub(crate) periods_ms: &'a [u64],
    pub(crate) quotas: &'a [f64],
    pub(crate) repetitions: u32,
    pub(crate) vcpus: u32,
    /// A change to this quota half way through.
    pub(crate) then: Option<f64>,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self {
            limiters: &["qemu-7.2", "qemu-10", "budget"],
            rings: &[4096, 16384, 65536],
            periods_ms: &[1000],
            quotas: &[1.0, 25.0, 64.0, 128.0, 256.0, 500.0],
            repetitions: 3,
            vcpus: 1,
            then: None,
        }
    }
}

const UNLIMITED: f64 = 1170.0;

pub(crate) fn made(recipe: &Recipe<'_>) -> Made {
    let mut random = StdRng::seed_from_u64(7);
    let mut made = Made {
        samples: Vec::new(),
        summaries: Vec::new(),
        stalls: Vec::new(),
    };
    let mut cell = 0;
    for limiter in recipe.limiters {
        for ring in recipe.rings {
            for period in recipe.periods_ms {
                for quota in recipe.quotas {
                    for repetition in 0..recipe.repetitions {
                        for vcpu in 0..recipe.vcpus {
                            let held = Held::new(limiter, *ring, *period, *quota);
                            let row = summary(&held, cell, repetition, vcpu, recipe.vcpus, &mut random);
                            samples(&mut made.samples, &held, &row, recipe.then, &mut random);
                            made.summaries.push(row);
                        }
                        made.stalls.push(Stalls {
                            cell,
                            lengths: stalls(&mut random),
                        });
                        cell += 1;
                    }
                }
            }
        }
    }
    made
}

/// What a limiter comes to.
struct Held<'a> {
    limiter: &'a str,
    ring: u32,
    period_ms: u64,
    quota: f64,
    predicted: f64,
    truth: f64,
    reading: f64,
    verdict: Verdict,
}

impl<'a> Held<'a> {
    fn new(limiter: &'a str, ring: u32, period_ms: u64, quota: f64) -> Self {
        let predicted = f64::from(ring) / 256.0 / (period_ms as f64 / 1000.0);
        let cap = UNLIMITED / 100.0;
        let exact = limiter.starts_with("budget");
        let reading = if exact { quota } else { quota.max(predicted).max(cap) };
        let truth = if limiter == "qemu-10" && quota < predicted {
            quota.max(cap) * 0.8
        } else {
            reading
        };
        let verdict = match () {
            () if exact || reading <= quota * 1.05 => Verdict::Held,
            () if limiter == "qemu-10" && quota < predicted => Verdict::Oscillating,
            () if predicted >= cap => Verdict::FloorBound,
            () => Verdict::CapBound,
        };
        Self {
            limiter,
            ring,
            period_ms,
            quota,
            predicted,
            truth,
            reading,
            verdict,
        }
    }
}

fn noisy(value: f64, share: f64, random: &mut impl Rng) -> f64 {
    value * (1.0 + share * random.random_range(-1.0..1.0))
}

fn summary(held: &Held<'_>, cell: u32, repetition: u32, vcpu: u32, vcpus: u32, random: &mut impl Rng) -> Summary {
    let (guest, ring) = (noisy(held.truth, 0.08, random), noisy(held.reading, 0.04, random));
    let error = guest - held.quota;
    let settles = held.verdict != Verdict::Oscillating;
    Summary {
        cell,
        repetition,
        vmm: "rig".to_owned(),
        limiter: held.limiter.to_owned(),
        guest: Some("sequential".to_owned()),
        ring_entries: Some(held.ring),
        period_ms: held.period_ms,
        vcpus,
        vcpu,
        memory_mib: Some(1024),
        quota_mib_s: Some(held.quota),
        unlimited_mib_s: Some(noisy(UNLIMITED, 0.03, random)),
        measured_s: 20.0,
        ring_mib_s: Some(ring),
        ring_median_mib_s: Some(ring),
        ring_sd_mib_s: Some(ring * 0.1),
        ring_ci_low_mib_s: Some(ring * 0.95),
        ring_ci_high_mib_s: Some(ring * 1.05),
        guest_mib_s: Some(guest),
        guest_sd_mib_s: Some(guest * 0.1),
        guest_ci_low_mib_s: Some(guest * 0.9),
        guest_ci_high_mib_s: Some(guest * 1.1),
        guest_read_mib_s: Some(0.0),
        utilisation_pct: Some((100.0 * guest / UNLIMITED).min(100.0)),
        settle_s: settles.then(|| noisy(3.0 + 60.0 / held.quota.max(10.0), 0.3, random)),
        overshoot_pct: Some(4.0),
        error_mib_s: Some(error),
        error_pct: Some(100.0 * error / held.quota),
        oscillation_pct: Some(3.0),
        ring_full_per_s: Some(4.0),
        stall_p50_us: Some(1e5),
        stall_p99_us: Some(5e5),
        stall_p999_us: Some(8e5),
        stall_max_us: Some(9e5),
        lateness_p50_us: Some(60.0),
        lateness_p99_us: Some(300.0),
        asked_us: Some(if held.limiter == "budget" {
            17_000_000
        } else {
            noisy(9e7, 0.8, random) as u64
        }),
        slept_us: Some(noisy(17e6, 0.1, random) as u64),
        predicted_floor_mib_s: Some(held.predicted),
        cap_floor_mib_s: Some(UNLIMITED / 100.0),
        verdict: held.verdict,
        ..Summary::default()
    }
}

fn samples(out: &mut Vec<Sample>, held: &Held<'_>, row: &Summary, then: Option<f64>, random: &mut impl Rng) {
    let (mut written, mut exits, mut asked, mut slept) = (0.0, 0.0, 0.0, 0.0);
    let step = 0.25;
    let bursty = held.verdict == Verdict::Oscillating;
    let mut reading = UNLIMITED;
    for i in -12..100_i32 {
        let t_s = f64::from(i) * step;
        let limited = t_s >= 0.0;
        let goal = match then {
            Some(then) if t_s >= 12.5 => then.max(held.predicted),
            _ => row.ring_mib_s.expect("it was made with one"),
        };
        let settled = goal + (UNLIMITED - goal) * if limited { (-t_s / 1.2).exp() } else { 1.0 };
        let guest = match () {
            () if bursty && t_s > 3.0 => {
                if i % 28 < 2 {
                    1000.0
                } else {
                    0.0
                }
            }
            () => noisy(settled, 0.06, random),
        };
        if i.rem_euclid(4) == 0 {
            reading = noisy(settled, 0.03, random);
        }
        let throttle_us = if limited {
            1e6 * (f64::from(held.ring) / 65536.0) * (1.0 - (-t_s / 2.0).exp())
        } else {
            0.0
        };
        written += guest * 256.0 * step;
        if limited {
            exits += (guest * 256.0 * step / f64::from(held.ring)).max(0.3);
            asked += 230_000.0;
            slept += noisy(210_000.0, 0.1, random);
        }
        out.push(Sample {
            cell: row.cell,
            vcpu: row.vcpu,
            t_s,
            quota_mib_s: limited.then(|| then.filter(|_| t_s >= 12.5).unwrap_or(held.quota)),
            ring_mib_s: Some(reading),
            guest_mib_s: Some(guest),
            guest_read_mib_s: Some(0.0),
            throttle_us: Some(throttle_us as u64),
            utilisation_pct: Some(50.0),
            written_pages: Some(written as u64),
            read_pages: Some(0),
            harvested_pages: Some(written as u64),
            ring_full_exits: Some(exits as u64),
            exits: Some(exits as u64),
            asked_us: Some(asked as u64),
            slept_us: Some(slept as u64),
            ..Sample::default()
        });
    }
}

fn stalls(random: &mut impl Rng) -> Histogram<u64> {
    let mut lengths = Histogram::new(3).expect("three digits is a valid precision");
    for _ in 0..2_000 {
        let tail: f64 = random.random_range(0.00001..1.0);
        lengths
            .record((3e5 / tail.powf(0.7)) as u64)
            .expect("the histogram grows");
    }
    lengths
}
