//! What guests that write and wait get of their quota under each limiter: a line per cell, printed as it is measured.
//!
//! `cargo bench -p dirtyrig-rig --bench on_off [-- --limiter A,B] [-- --cycle 20ms,2s] [-- --duty 20,80] [-- --share 0.5,0.8]
//! [-- --burst 100ms,1s,10s] [-- --seconds N] [-- --repetitions N] [-- --out FILE.md]`
//!
//! A guest writes for a part of its cycle, its duty, as fast as this host lets it, and waits for the rest. What it does alone is
//! measured before each repetition of each of its rows; its quota is a share of that. A row has medians of the repetitions, one after
//! the other through all limiters, so that a host that slowly changes favours none. All of it, three times each, takes two and a half hours;
//! each option chooses a part, and what `--out` has already is not measured again:
//!
//! - `--limiter budget,budget-ebpf --duty 20,80 --share 0.8`: the promise, in 13 minutes;
//! - `--limiter budget --duty 20 --share 0.8 --burst 100ms,1s,10s`: what depth costs, in 10 minutes.

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
use dirtyrig_rig::{analysis::stats::median, machine::Facts, model::Sample, plot::machine_line};
use dirtyrig_testkit::Need;

/// Holds more entries than the shortest burst has pages, and is full several times a second.
const MACHINE: &str = "ring = 4096\nmemory = 512";
/// The limiters whose law acts once a period: they are given time to settle.
const PERIODIC: [&str; 4] = ["qemu-v11", "qemu-7.2", "qemu-10", "auto-converge"];
const SETTLED_S: f64 = 4.0;
const HEAD: &str = "| limiter | burst | cycle | duty, % | alone, MiB/s | quota | gets, % of it (range) | most in a second, % | paused, % of the time \
                    | longest pause asked for, ms | longest stall, ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

/// What is to be measured.
struct Choice {
    limiters: Vec<String>,
    cycles: Vec<Duration>,
    duties: Vec<f64>,
    shares: Vec<f64>,
    bursts: Vec<String>,
    seconds: f64,
    repetitions: usize,
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
            repetitions: 3,
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
                "--repetitions" => {
                    let count = value()?.parse().ok().filter(|&count| count > 0);
                    choice.repetitions = count.context("`--repetitions` takes a whole number above 0, such as 3")?;
                }
                "--out" => choice.out = Some(value()?.into()),
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => anyhow::bail!(
                    "`{word}` is not known: give --limiter, --cycle, --duty, --share, --burst, --seconds, --repetitions or --out"
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
            let head = head(&choice);
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
            for &share in &choice.shares {
                let cycle = humantime::format_duration(cycle);
                let mut rows: Vec<Row> = Vec::new();
                for limiter in &choice.limiters {
                    for burst in &choice.bursts {
                        let name = format!("| `{limiter}` | {burst} | {cycle} | {duty:.0} |");
                        let is_done = |line: &str| line.starts_with(&name) && line.contains(&share_of(share));
                        if !done.lines().any(is_done) && (limiter != "budget-ebpf" || Need::Bpf.is_met()) {
                            rows.push(Row::new(name, limiter, burst));
                        }
                    }
                }
                for _ in 0..choice.repetitions {
                    for row in &mut rows {
                        row.measure(&mut runner, &guest, share, choice.seconds)?;
                    }
                }
                for row in &rows {
                    keep(&choice, &row.line(share))?;
                }
            }
        }
    }
    Ok(())
}

/// A row of the table, and what its repetitions found.
struct Row<'a> {
    name: String,
    limiter: &'a str,
    burst: &'a str,
    found: Vec<Found>,
}

/// What one cell found.
struct Found {
    alone_mib_s: f64,
    got_pct: f64,
    most_pct: f64,
    paused_pct: f64,
    asked_ms: f64,
    stall_ms: f64,
}

impl<'a> Row<'a> {
    fn new(name: String, limiter: &'a str, burst: &'a str) -> Self {
        Self {
            name,
            limiter,
            burst,
            found: Vec::new(),
        }
    }

    fn measure(&mut self, runner: &mut Runner, guest: &str, share: f64, seconds: f64) -> anyhow::Result<()> {
        let alone = runner.run("none", &format!("{guest}\nduration = '4s'"))?;
        let alone = alone.rate(0, written, 0.0, f64::INFINITY);
        let quota = share * alone;
        let settings = format!(
            "{guest}\nquota = {quota}\nburst = '{}'\nduration = '{seconds}s'",
            self.burst
        );
        let cell = runner.run(self.limiter, &settings)?;
        self.found.push(found(&cell, self.limiter, alone, quota));
        Ok(())
    }

    fn line(&self, share: f64) -> String {
        let of = |value: fn(&Found) -> f64| {
            let mut values: Vec<f64> = self.found.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            (median(&values), values[0], values[values.len() - 1])
        };
        let (got, least, most) = of(|found| found.got_pct);
        format!(
            "{} {:.0} | {} | {got:.1} ({least:.1} to {most:.1}) | {:.0} | {:.0} | {:.1} | {:.1} |\n",
            self.name,
            of(|found| found.alone_mib_s).0,
            share_of(share),
            of(|found| found.most_pct).0,
            of(|found| found.paused_pct).0,
            of(|found| found.asked_ms).0,
            of(|found| found.stall_ms).0,
        )
    }
}

fn share_of(share: f64) -> String {
    format!("{share} of it")
}

fn written(row: &Sample) -> u64 {
    row.written_pages.expect("our guest counts its pages")
}

/// What the vCPU got of its quota, and how it was paused for it.
fn found(cell: &Cell, limiter: &str, alone_mib_s: f64, quota: f64) -> Found {
    let is_periodic = PERIODIC.contains(&limiter);
    let from_s = if is_periodic { SETTLED_S } else { 0.0 };
    let stalls = &cell.result.stalls;
    let last_s = cell.result.samples.last().map_or(0.0, |row| row.t_s);
    // What is saved up at the end was not lost: it ends with the last pause that was asked for, at which nothing is. A guest that
    // was not paused in the last half does no more than its quota, and what it did is all that there is.
    let last_pause = stalls.iter().rfind(|stall| !stall.asked.is_zero());
    let until_s = last_pause
        .map(|stall| stall.at.as_secs_f64())
        .filter(|&at_s| !is_periodic && at_s > last_s / 2.0)
        .unwrap_or(f64::INFINITY);
    let within = || stalls.iter().filter(move |stall| stall.at.as_secs_f64() >= from_s);
    let asked_s: f64 = within().map(|stall| stall.asked.as_secs_f64()).sum();
    let seconds = (0_u32..).map(f64::from).take_while(|&second| second + 1.0 <= last_s);
    let in_a_second = seconds.map(|second| cell.rate(0, written, second, second + 1.0));
    Found {
        alone_mib_s,
        got_pct: 100.0 * cell.rate(0, written, from_s, until_s) / quota,
        most_pct: 100.0 * in_a_second.fold(0.0, f64::max) / quota,
        paused_pct: 100.0 * asked_s / (last_s - from_s),
        asked_ms: within()
            .map(|stall| stall.asked.as_secs_f64() * 1e3)
            .fold(0.0, f64::max),
        stall_ms: cell.longest_stall_ms(0, from_s, f64::INFINITY),
    }
}

fn head(choice: &Choice) -> String {
    let machine = serde_json::to_value(Facts::gather()).ok();
    let machine = machine.and_then(|facts| facts.as_object().map(machine_line));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}. Ring 4096, by the guest's own counter, over {} seconds: to the last pause, at which nothing is saved up; of laws with a \
         period from the fifth second on. Medians of {}. The longest pause asked for is the limiter's; what a stall is longer is the \
         host's.\n",
        machine.unwrap_or_default(),
        choice.seconds,
        choice.repetitions
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
