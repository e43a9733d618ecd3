//! Promises of random migrations: whether each is kept, by the guest's own counters, and how good the forecast was.
//!
//! `cargo bench -p dirtyrig-rig --bench migrate -- --plans 100 --out results/plans [--seed N] [--qemu BINARY]`
//!
//! Each plan draws guest, memory, vCPUs, ring, bandwidth, total time (1.2 to 3.5 times the least) and blackout (50 to 300 ms
//! above the fixed part). It takes 3 to 20 s. Interrupted, the same command goes on where it was. A run whose blackout the
//! machine kept from being seen is repeated; what decides is how far the looks lay apart, not what they saw.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use dirtyrig_guests::Program;
use dirtyrig_rig::{
    analysis::stats::median,
    engine::interrupt::Interrupt,
    machine::Facts,
    migrate::{
        bandwidth::Bandwidth,
        cell::{self, Setup},
        course::Pass,
        drive::{Now, Watch},
        error::MigrateError,
        pair::Guest,
        promise::Promise,
        rows,
        strategy::Strategy,
    },
    qemu::binary::Binary,
    recording::{
        MANIFEST, Manifest,
        migrations::{MigrationRecorder, MigrationRow, read_migrations},
    },
    scenario::MAX_STALL,
};
use dirtyrig_testkit::Need;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Map, Value, json};

/// How often a disturbed run is repeated.
const REPEATS: u32 = 3;

fn main() -> anyhow::Result<()> {
    let (mut plans, mut seed, mut out, mut qemu) = (10_u32, 1_u64, None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--plans" => plans = value()?.parse().context("`--plans` takes a whole number")?,
            "--seed" => seed = value()?.parse().context("`--seed` takes a whole number")?,
            "--out" => out = Some(PathBuf::from(value()?)),
            "--qemu" => qemu = Some(PathBuf::from(value()?)),
            // Cargo says it to every benchmark.
            "--bench" => {}
            _ => anyhow::bail!("`{word}` is not known: give `--plans N`, `--seed N`, `--out DIR` or `--qemu BINARY`"),
        }
    }
    if [Need::Kvm, Need::Bpf, Need::Qemu].iter().any(|need| !need.is_met()) {
        println!("KVM, eBPF or a QEMU is missing: nothing measured");
        return Ok(());
    }
    let dir = out.context("say where the recording goes: `--out DIR`")?;
    let binary = Binary::find(qemu.as_deref())?;
    let interrupt = Interrupt::from_signals()?;
    let mut recorder = if dir.join(MANIFEST).exists() {
        let recorder = MigrationRecorder::resume(&dir)?;
        seed = recorder.manifest().seed;
        recorder
    } else {
        let described = json!({ "random_plans": plans, "version": binary.version.to_string() });
        MigrationRecorder::create(&dir, Manifest::new(seed, 0..plans, machine(), described))?
    };
    let cells: Vec<u32> = recorder.manifest().cells.iter().copied().collect();
    for cell in cells {
        if recorder.is_finished(cell) || interrupt.is_set() {
            continue;
        }
        let setup = draw(seed.wrapping_add(u64::from(cell)))?;
        eprintln!(
            "plan {cell} (seed {}): {} x {}, {} MiB, ring {}, {}, {:?} and {:?}",
            setup.guest.seed,
            setup.guest.programs.len(),
            setup.guest.programs[0],
            setup.guest.memory_mib,
            setup.guest.ring_entries,
            setup.link,
            setup.promise.within,
            setup.promise.downtime
        );
        let mut row = None;
        for _ in 0..=REPEATS {
            let mut watch = Recorded {
                recorder: &mut recorder,
                cell,
            };
            let outcome = cell::run(&binary, &setup, &mut watch, &interrupt)?;
            if interrupt.is_set() {
                break;
            }
            let is_disturbed = outcome.is_disturbed();
            eprintln!("  {}", shown(&rows::of_outcome(cell, &binary, &setup, &outcome)));
            row = Some(rows::of_outcome(cell, &binary, &setup, &outcome));
            if !is_disturbed {
                break;
            }
            eprintln!(
                "  disturbed: the blackout is known to {:?} only",
                outcome.truth.blackout_error
            );
        }
        if let Some(row) = row.filter(|_| !interrupt.is_set()) {
            recorder.append_migration(&row)?;
        }
    }
    recorder.finish()?;
    println!("{}", summary(&read_migrations(&dir)?));
    Ok(())
}

fn machine() -> Map<String, Value> {
    match serde_json::to_value(Facts::gather()) {
        Ok(Value::Object(facts)) => facts,
        _ => unreachable!("the facts are a struct of plain values with named fields"),
    }
}

/// A plan that a seed stands for.
fn draw(seed: u64) -> anyhow::Result<Setup> {
    let mut random = StdRng::seed_from_u64(seed);
    let programs = ["sequential", "random", "hot-cold:20/90", "burst:4096/50ms"];
    let program: Program = programs[random.random_range(0..programs.len())].parse()?;
    let vcpus = random.random_range(1..=2);
    let mut setup = Setup {
        guest: Guest {
            programs: vec![program; vcpus],
            memory_mib: [32, 64, 128][random.random_range(0..3)],
            ring_entries: [1024, 4096, 16384, 65536][random.random_range(0..4)],
            seed,
        },
        link: Bandwidth::of_bytes(random.random_range(32..=128) << 20),
        strategy: Strategy::Dirtyrig,
        promise: Promise {
            within: Duration::from_millis(1),
            downtime: Duration::ZERO,
        },
        max_stall: MAX_STALL,
        give_up: Duration::from_mins(2),
    };
    setup.promise.downtime = setup.fixed() + Duration::from_millis(random.random_range(50..=300));
    let least = match cell::plan(&setup) {
        Err(MigrateError::NotPromised { refusal, .. }) => refusal.within,
        Ok(_) => None,
        Err(error) => return Err(error.into()),
    };
    let least = least.context("a blackout of 50 ms above the fixed part is refused whatever the time")?;
    setup.promise.within = least.mul_f64(random.random_range(1.2..3.5));
    Ok(setup)
}

struct Recorded<'a> {
    recorder: &'a mut MigrationRecorder,
    cell: u32,
}

impl Watch for Recorded<'_> {
    fn pass(&mut self, pass: &Pass) -> anyhow::Result<()> {
        Ok(self.recorder.append_pass(&rows::of_pass(self.cell, pass))?)
    }

    fn progress(&mut self, _: &Now) -> anyhow::Result<()> {
        Ok(())
    }

    fn said(&mut self, text: &str) {
        eprintln!("  {text}");
    }
}

fn shown(row: &MigrationRow) -> String {
    format!(
        "{}: {:.2} s of {:.2} (expected {:.2}), blackout {:.0} ms of {:.0} (at most {:.0}; QEMU says {:.0}), quota {:.1} of {:.0} MiB/s, stall \
         {:.0} ms, {} passes, {} pages differ {}",
        if row.kept { "kept" } else { "BROKEN" },
        row.total_s,
        row.promised_total_s,
        row.expected_total_s.unwrap_or(f64::NAN),
        row.blackout_ms.unwrap_or(f64::NAN),
        row.promised_blackout_ms,
        row.bound_blackout_ms.unwrap_or(f64::NAN),
        row.qemu_downtime_ms.unwrap_or(f64::NAN),
        row.quota_mib_s.unwrap_or(f64::NAN),
        row.logged_mib_s.unwrap_or(f64::NAN),
        row.longest_stall_ms.unwrap_or(f64::NAN),
        row.passes,
        row.differing_pages
            .map_or("unknown".to_owned(), |pages| pages.to_string()),
        row.why
    )
}

/// What is to be known of all of them.
fn summary(rows: &[MigrationRow]) -> String {
    let count = |what: fn(&MigrationRow) -> bool| rows.iter().filter(|row| what(row)).count();
    let mut errors: Vec<f64> = rows
        .iter()
        .filter_map(|row| Some((row.total_s / row.expected_total_s? - 1.0).abs() * 100.0))
        .collect();
    errors.sort_by(f64::total_cmp);
    let mut unsaid: Vec<f64> = rows
        .iter()
        .filter_map(|row| Some(row.blackout_ms? - row.qemu_downtime_ms?))
        .collect();
    unsaid.sort_by(f64::total_cmp);
    let range = |values: &[f64]| match values {
        [] => "-".to_owned(),
        [first, .., last] => format!("median {:.1}, {first:.1} to {last:.1}", median(values)),
        [only] => format!("{only:.1}"),
    };
    format!(
        "{} plans: {} kept, {} with identical memory, {} disturbed\n\
         forecast of the total time, error in percent: {}\n\
         blackout beyond QEMU's downtime, ms: {}",
        rows.len(),
        count(|row| row.kept),
        count(|row| row.differing_pages == Some(0)),
        count(|row| row.disturbed == Some(true)),
        range(&errors),
        range(&unsaid),
    )
}
