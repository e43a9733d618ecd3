//! What is measured, a function a group; each call is one repetition.

use std::time::Duration;

use super::{
    cell::Cell,
    cells::{Bench, phases},
};
use anyhow::Context;
use dirtyrig_rig::model::Sample;

/// One repetition of a group.
type Group = fn(&mut Bench) -> anyhow::Result<()>;

/// Counts pages of a vCPU.
type Count = fn(&Sample) -> u64;

/// Every group by its name.
pub(crate) const GROUPS: [(&str, Group); 6] = [
    ("changes", changes),
    ("lowest", lowest),
    ("rings", rings),
    ("cost", cost),
    ("beside", beside),
    ("vm", vm),
];

const QEMU: &str = "qemu-7.2";
/// Its period, unless another is given.
const PERIOD: Duration = Duration::from_secs(1);

fn written(row: &Sample) -> u64 {
    row.written_pages.expect("our guest counts its pages")
}

fn read(row: &Sample) -> u64 {
    row.read_pages.expect("our guest counts its pages")
}

/// Unlimited to 100, to 500, to 100, to 25, to 300 MiB/s at ring 65536.
fn changes(bench: &mut Bench) -> anyhow::Result<()> {
    for &limiter in [QEMU].iter().chain(bench.budgets()) {
        let each_s = if limiter == QEMU { 5.0 } else { 2.5 };
        let at = |index: f64| (index * each_s * 1000.0) as u64;
        let cell = bench.run(
            limiter,
            &format!(
                "ring = 65536\nquota = 100\nduration = '{}ms'\nat = ['{}ms set 500 all', '{}ms set 100 all', \
                 '{}ms set 25 all', '{}ms set 300 all']",
                at(5.0),
                at(1.0),
                at(2.0),
                at(3.0),
                at(4.0)
            ),
        )?;
        let phases = phases(&cell, Some(0), (limiter == QEMU).then_some(PERIOD));
        anyhow::ensure!(phases.len() == 5, "{limiter}: {} phases of 5", phases.len());
        let reached = |quota| cell.reaches(0, written, quota);
        for (row, phase, quota) in [
            ("settle unlimited", 0, 100.0),
            ("settle 500", 2, 100.0),
            ("settle 25", 4, 300.0),
        ] {
            // What never settles takes at least as long as it was watched.
            let value = phases[phase].settle_s.unwrap_or(f64::INFINITY);
            bench.keep_if(reached(quota), row, limiter, value * 1e3);
        }
        for (row, phase, quota) in [("error 500", 1, 500.0), ("error 100", 2, 100.0), ("error 25", 3, 25.0)] {
            // The second half: whether it has settled or not.
            let (from, until) = (phases[phase].at_s + each_s / 2.0, phases[phase].until_s);
            let rate = cell.rate(0, written, from, until);
            bench.keep_if(reached(quota), row, limiter, 100.0 * (rate - quota).abs() / quota);
        }
        let stall = cell.longest_stall_ms(0, phases[3].at_s + 0.2, phases[3].until_s);
        bench.keep_if(reached(25.0), "stall 25", limiter, stall);
        let cost_pct = phases[3].cost_pct.context("the rig tells what limiting costs")?;
        bench.keep_if(reached(25.0), "cost 25", limiter, cost_pct);
    }
    Ok(())
}

/// Low quotas: the error of each over six seconds, and in the worst two of them, which a pause at their edge moves.
fn lowest(bench: &mut Bench) -> anyhow::Result<()> {
    const LOW: [(&str, &str, f64); 2] = [("low 1", "low 1 worst", 1.0), ("low 0.25", "low 0.25 worst", 0.25)];
    const QEMU_LOW: [(&str, &str, f64); 2] = [("low 256", "low 256 worst", 256.0), ("low 128", "low 128 worst", 128.0)];
    for &limiter in bench.budgets() {
        for (row, worst_row, quota) in LOW {
            held(bench, limiter, [row, worst_row], quota, "7s", 1.0)?;
        }
    }
    for (row, worst_row, quota) in QEMU_LOW {
        held(bench, QEMU, [row, worst_row], quota, "10s", 4.0)?;
    }
    Ok(())
}

/// Keeps the error from a time on, and that of the worst of three spans of two seconds, in percent, each in its row.
fn held(
    bench: &mut Bench,
    limiter: &'static str,
    rows: [&'static str; 2],
    quota: f64,
    duration: &str,
    from_s: f64,
) -> anyhow::Result<()> {
    let cell = bench.run(
        limiter,
        &format!("ring = 65536\nquota = {quota}\nduration = '{duration}'"),
    )?;
    let error = |from_s, until_s| 100.0 * (cell.rate(0, written, from_s, until_s) - quota).abs() / quota;
    let worst = [0.0, 2.0, 4.0].map(|after| error(from_s + after, from_s + after + 2.0));
    let values = [error(from_s, from_s + 6.0), worst.into_iter().fold(0.0, f64::max)];
    for (row, value) in rows.into_iter().zip(values) {
        bench.keep_if(cell.reaches(0, written, quota), row, limiter, value);
    }
    Ok(())
}

/// The same at every ring.
fn rings(bench: &mut Bench) -> anyhow::Result<()> {
    const RINGS: [(&str, &str, u32); 2] = [
        ("ring 1024", "ring 1024 stall", 1024),
        ("ring 4096", "ring 4096 stall", 4096),
    ];
    for &limiter in bench.budgets() {
        for (row, stall_row, ring) in RINGS {
            let cell = bench.run(limiter, &format!("ring = {ring}\nquota = 25\nduration = '2500ms'"))?;
            let rate = cell.rate(0, written, 0.3, f64::INFINITY);
            let reached = cell.reaches(0, written, 25.0);
            bench.keep_if(reached, row, limiter, 100.0 * (rate - 25.0).abs() / 25.0);
            let stall = cell.longest_stall_ms(0, 0.3, f64::INFINITY);
            bench.keep_if(reached, stall_row, limiter, stall);
        }
    }
    Ok(())
}

/// A guest whose quota is out of reach, against one without a limiter before it and after it.
fn cost(bench: &mut Bench) -> anyhow::Result<()> {
    const ROUNDS: usize = 3;
    let free = |cell: &Cell| cell.rate(0, written, 0.2, f64::INFINITY);
    let mut before = free(&bench.run("none", "ring = 4096\nduration = '1700ms'")?);
    for _ in 0..ROUNDS {
        for &limiter in bench.budgets() {
            let limited = free(&bench.run(limiter, "ring = 4096\nquota = 1000000\nduration = '1700ms'")?);
            let after = free(&bench.run("none", "ring = 4096\nduration = '1700ms'")?);
            bench.keep(
                "cost unlimited",
                limiter,
                100.0 * (1.0 - 2.0 * limited / (before + after)),
            );
            before = after;
        }
    }
    Ok(())
}

const TWO: &str = "ring = 4096\nvcpus = 2";

/// A vCPU without a limit beside one that is limited to 25 MiB/s.
fn beside(bench: &mut Bench) -> anyhow::Result<()> {
    for &limiter in bench.budgets() {
        reader_beside(bench, limiter)?;
    }
    writer_beside(bench)?;
    auto_converge_beside(bench)
}

/// The limited vCPU is taken out and put in again by turns: two VMs differ by more than this slows a reader.
fn reader_beside(bench: &mut Bench, limiter: &'static str) -> anyhow::Result<()> {
    const TURN_S: f64 = 0.4;
    const PAIRS: u32 = 8;
    // By the first, every page has been touched.
    let turns: Vec<f64> = (0..=2 * PAIRS).map(|turn| 1.0 + TURN_S * f64::from(turn)).collect();
    let script: Vec<String> = (turns.iter().zip(["unplug", "plug"].iter().cycle()))
        .map(|(at_s, action)| format!("'{:.0}ms {action} 0'", at_s * 1e3))
        .collect();
    let cell = bench.run(
        limiter,
        &format!(
            "{TWO}\nguest = 'sequential+reader'\nquota = '25+none'\nduration = '{:.0}ms'\nat = [{}]",
            (turns[turns.len() - 1] + TURN_S) * 1e3,
            script.join(", ")
        ),
    )?;
    let rates: Vec<f64> = (turns.iter().map(|at_s| cell.rate(1, read, at_s + 0.1, at_s + TURN_S))).collect();
    for turn in (1..rates.len()).step_by(2) {
        let alone = f64::midpoint(rates[turn - 1], rates[turn + 1]);
        let reached = cell.reaches(0, written, 25.0);
        bench.keep_if(reached, "reader beside", limiter, 100.0 * (1.0 - rates[turn] / alone));
    }
    Ok(())
}

/// Against the same alone in a VM without a limiter, before and after: a program that counts pages runs for its pages too.
fn writer_beside(bench: &mut Bench) -> anyhow::Result<()> {
    let rate = |cell: &Cell| cell.rate(1, written, 1.0, f64::INFINITY);
    let settings = format!("{TWO}\nduration = '2500ms'");
    let alone = format!("{settings}\nat = ['0ms unplug 0']");
    let before = rate(&bench.run("none", &alone)?);
    let mut limited = Vec::new();
    for &limiter in bench.budgets() {
        let cell = bench.run(limiter, &format!("{settings}\nquota = '25+none'"))?;
        limited.push((limiter, rate(&cell)));
    }
    let after = rate(&bench.run("none", &alone)?);
    for (limiter, beside) in limited {
        bench.keep(
            "writer beside",
            limiter,
            100.0 * (1.0 - 2.0 * beside / (before + after)),
        );
    }
    Ok(())
}

/// Auto-converge slows a reader as well; it reaches its highest share in ten periods.
fn auto_converge_beside(bench: &mut Bench) -> anyhow::Result<()> {
    let settings = format!("{TWO}\nguest = 'sequential+reader'");
    let free = bench.run("none", &format!("{settings}\nduration = '2500ms'"))?;
    let held = bench.run(
        "auto-converge",
        &format!("{settings}\nduration = '3s'\nperiod = '100ms'\nquota = '25+none'"),
    )?;
    let counts: [(&str, u32, Count); 2] = [("slowed writer", 0, written), ("slowed reader", 1, read)];
    for (row, vcpu, count) in counts {
        let rate = |cell: &Cell, from_s| cell.rate(vcpu, count, from_s, f64::INFINITY);
        let slower = 100.0 * (1.0 - rate(&held, 2.0) / rate(&free, 1.0));
        bench.keep(row, "auto-converge", slower);
    }
    Ok(())
}

/// Two writers under one quota of 100 MiB/s; after 2.5 s the second is taken out. And one beside a vCPU that only reads.
fn vm(bench: &mut Bench) -> anyhow::Result<()> {
    const QUOTA: f64 = 100.0;
    for &limiter in bench.budgets() {
        let cell = bench.run(
            limiter,
            "ring = 65536\nvcpus = 2\nvm-quota = 100\nduration = '4s'\nat = ['2500ms unplug 1']",
        )?;
        let sum: f64 = (0..2).map(|vcpu| cell.rate(vcpu, written, 0.5, 2.5)).sum();
        // One alone must be able to take all of it.
        let reached = (0..2).all(|vcpu| cell.reaches(vcpu, written, QUOTA));
        bench.keep_if(reached, "vm sum", limiter, 100.0 * (sum - QUOTA).abs() / QUOTA);
        // The first tenth of a second in which the other has taken the whole of it.
        let taken = (0..150).map(|step| f64::from(step) * 0.01).find(|after| {
            let rate = cell.rate(0, written, 2.5 + after, 2.6 + after);
            rate >= 0.95 * QUOTA
        });
        bench.keep_if(reached, "vm flow", limiter, taken.unwrap_or(f64::INFINITY) * 1e3);
        let cell = bench.run(
            limiter,
            "ring = 65536\nvcpus = 2\nvm-quota = 100\nguest = 'sequential+reader'\nduration = '2500ms'",
        )?;
        let rate = cell.rate(0, written, 0.5, 2.5);
        let reached = cell.reaches(0, written, QUOTA);
        bench.keep_if(reached, "vm reader", limiter, 100.0 * (rate - QUOTA).abs() / QUOTA);
    }
    Ok(())
}
