//! What guests that write and wait get of their quota under each limiter: a line per cell, printed as it is measured.
//!
//! `cargo bench -p dirtyrig-rig --bench on_off [-- --limiter A,B] [-- --cycle 20ms,2s] [-- --duty 20,80] [-- --share 0.5,0.8]
//! [-- --burst 10ms,1s] [-- --seconds N] [-- --out FILE.md]`
//!
//! A guest writes for a part of its cycle, its duty, as fast as this host lets it, and waits for the rest. What it does alone is
//! measured first; its quota is a share of that. All of it takes an hour and a half; each option chooses a part, and what `--out`
//! has already is not measured again.

#[path = "../shared/cell.rs"]
#[expect(dead_code, reason = "shared with benchmarks that need more of it")]
mod cell;

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use cell::{Cell, Runner};
use dirtyrig_rig::{machine::Facts, plot::machine_line, recording::schema::Sample};
use dirtyrig_testkit::Need;

/// Holds more entries than the shortest burst has pages, and is full several times a second.
const MACHINE: &str = "ring = 4096\nmemory = 512";
/// The limiters whose law acts once a period: they are given time to settle.
const PERIODIC: [&str; 4] = ["qemu-v11", "qemu-7.2", "qemu-10", "auto-converge"];
const SETTLED_S: f64 = 4.0;
const HEAD: &str = "| limiter | burst | cycle | duty, % | alone, MiB/s | quota | gets, % of it | longest stall, ms |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|\n";

/// What is to be measured.
struct Choice {
    limiters: Vec<String>,
    cycles: Vec<Duration>,
    duties: Vec<f64>,
    shares: Vec<f64>,
    bursts: Vec<String>,
    seconds: f64,
    out: Option<PathBuf>,
}

impl Choice {
    fn from_args() -> anyhow::Result<Self> {
        fn list<T: std::str::FromStr>(text: &str, what: &str) -> anyhow::Result<Vec<T>> {
            let one = |word: &str| word.parse().ok().with_context(|| format!("`{word}` is no {what}"));
            text.split(',').map(one).collect()
        }
        let mut choice = Self {
            limiters: [
                "budget",
                "budget-ebpf",
                "ballast",
                "dirty-quota",
                "ring-sleep",
                "qemu-7.2",
                "qemu-10",
            ]
            .map(str::to_owned)
            .to_vec(),
            cycles: [2, 20, 200, 2000].map(Duration::from_millis).to_vec(),
            duties: vec![20.0, 50.0, 80.0],
            shares: vec![0.5, 0.8],
            bursts: vec!["1s".to_owned()],
            seconds: 10.0,
            out: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--limiter" => choice.limiters = list(&value()?, "limiter")?,
                "--cycle" => {
                    let cycles = value()?.split(',').map(humantime::parse_duration).collect();
                    choice.cycles = Result::context(cycles, "`--cycle` takes times, such as 20ms,2s")?;
                }
                "--duty" => choice.duties = list(&value()?, "duty in percent")?,
                "--share" => choice.shares = list(&value()?, "share of what the guest does alone")?,
                "--burst" => choice.bursts = list(&value()?, "burst")?,
                "--seconds" => choice.seconds = value()?.parse().context("`--seconds` takes a number, such as 10")?,
                "--out" => choice.out = Some(value()?.into()),
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => anyhow::bail!(
                    "`{word}` is not known: give --limiter, --cycle, --duty, --share, --burst, --seconds or --out"
                ),
            }
        }
        Ok(choice)
    }
}

fn main() -> anyhow::Result<()> {
    let choice = Choice::from_args()?;
    if !Need::Kvm.is_met() {
        println!("/dev/kvm is missing: nothing measured");
        return Ok(());
    }
    let done = match &choice.out {
        Some(path) if path.exists() => {
            fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?
        }
        _ => {
            let head = head(choice.seconds);
            keep(&choice, &head)?;
            String::new()
        }
    };
    let mut runner = Runner::new()?;
    let flat_out = runner.run("none", &format!("{MACHINE}\nduration = '2s'"))?;
    let speed = flat_out.rate(0, written, 0.2, f64::INFINITY) * 256.0;
    for &cycle in &choice.cycles {
        for &duty in &choice.duties {
            let pages = (speed * cycle.as_secs_f64() * duty / 100.0).round().max(1.0);
            let pause = cycle.mul_f64(1.0 - duty / 100.0).as_micros();
            let guest = format!("{MACHINE}\nguest = 'burst:{pages}/{pause}us'");
            let alone = runner.run("none", &format!("{guest}\nduration = '5s'"))?;
            let alone = alone.rate(0, written, 0.2, 4.2);
            for &share in &choice.shares {
                for limiter in &choice.limiters {
                    for burst in &choice.bursts {
                        let cycle = humantime::format_duration(cycle);
                        let row = format!("| `{limiter}` | {burst} | {cycle} | {duty:.0} |");
                        let is_done = |line: &str| line.starts_with(&row) && line.contains(&share_of(share));
                        if done.lines().any(is_done) || limiter == "budget-ebpf" && !Need::Bpf.is_met() {
                            continue;
                        }
                        let quota = share * alone;
                        let settings = format!(
                            "{guest}\nquota = {quota}\nburst = '{burst}'\nduration = '{}s'",
                            choice.seconds
                        );
                        let cell = runner.run(limiter, &settings)?;
                        keep(
                            &choice,
                            &format!(
                                "{row} {alone:.0} | {} |{}\n",
                                share_of(share),
                                got(&cell, limiter, quota)
                            ),
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn share_of(share: f64) -> String {
    format!("{share} of it")
}

fn written(row: &Sample) -> u64 {
    row.written_pages.expect("our guest counts its pages")
}

/// What the vCPU got of its quota, and its longest stall.
fn got(cell: &Cell, limiter: &str, quota: f64) -> String {
    let from_s = if PERIODIC.contains(&limiter) { SETTLED_S } else { 0.0 };
    // What is saved up at the end was not lost: it ends with the last pause, at which nothing is.
    let last_s = cell
        .result
        .stalls
        .last()
        .map_or(f64::INFINITY, |stall| stall.at.as_secs_f64());
    let until_s = if PERIODIC.contains(&limiter) {
        f64::INFINITY
    } else {
        last_s
    };
    let rate = cell.rate(0, written, from_s, until_s);
    let stall_ms = cell.longest_stall_ms(0, from_s, f64::INFINITY);
    format!(" {:.1} | {stall_ms:.1} |", 100.0 * rate / quota)
}

fn head(seconds: f64) -> String {
    let machine = serde_json::to_value(Facts::gather()).ok();
    let machine = machine.and_then(|facts| facts.as_object().map(machine_line));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}. Ring 4096, by the guest's own counter, over {seconds} seconds: to the last pause, at which nothing is saved up; of laws with a \
         period from the fifth second on.\n",
        machine.unwrap_or_default()
    );
    text + HEAD
}

/// Prints it, and writes it to the file that was given.
fn keep(choice: &Choice, text: &str) -> anyhow::Result<()> {
    print!("{text}");
    std::io::stdout().flush()?;
    if let Some(path) = &choice.out {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("can't write {}", path.display()))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
