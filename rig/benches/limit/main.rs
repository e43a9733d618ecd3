//! How exactly a running QEMU is held from outside: by the guest's own counter, second by second.
//!
//! `cargo bench -p dirtyrig-rig --bench limit [-- --seconds N] [-- --out FILE.md]`
//!
//! Each point is a QEMU of its own, limited as `dirtyrig limit` does it, for N seconds (5 by default), and let go at the end;
//! 20 points take about 3 minutes. It needs a QEMU and eBPF.

#[path = "../shared/cell.rs"]
mod cell;

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::Context;
use cell::{Cell, Runner};
use dirtyrig_rig::{machine::Facts, model::Sample, plot::machine_line, scenario::MAX_STALL};
use dirtyrig_testkit::Need;

const RINGS: [u32; 2] = [4096, 65536];
const QUOTAS: [f64; 5] = [500.0, 100.0, 25.0, 5.0, 1.0];
/// From then on it is to hold.
const SETTLED_S: f64 = 0.2;
/// How long it is watched after it was let go.
const AFTER_S: f64 = 0.5;
/// A vCPU is free once it dirties at half of what it did before it was limited.
const FREE: f64 = 0.5;

fn main() -> anyhow::Result<()> {
    let mut seconds = 5_u32;
    let mut out: Option<PathBuf> = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--seconds" => {
                let number = value()?.parse();
                seconds = number.context("`--seconds` takes a whole number, such as 5")?;
            }
            "--out" => out = Some(value()?.into()),
            // Cargo says it to every benchmark.
            "--bench" => {}
            _ => anyhow::bail!("`{word}` is not known: give `--seconds N` or `--out FILE`"),
        }
    }
    if [Need::Kvm, Need::Bpf, Need::Qemu].iter().any(|need| !need.is_met()) {
        println!("KVM, eBPF or a QEMU is missing: nothing measured");
        return Ok(());
    }
    let mut runner = Runner::new()?;
    let mut text = head(seconds);
    for vcpus in [1, 2] {
        for ring in RINGS {
            for quota in QUOTAS {
                eprintln!("{vcpus} vCPUs, ring {ring}, {quota} MiB/s");
                let cell = run(&mut runner, vcpus, ring, quota, seconds)?;
                let _ = writeln!(text, "{}", line(&cell, vcpus, ring, quota, f64::from(seconds)));
            }
        }
    }
    print!("{text}");
    if let Some(path) = out {
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn run(runner: &mut Runner, vcpus: u32, ring: u32, quota: f64, seconds: u32) -> anyhow::Result<Cell> {
    let end_ms = f64::from(seconds).mul_add(1000.0, SETTLED_S * 1000.0);
    let settings = format!(
        "vmm = 'qemu'\nring = {ring}\nvcpus = {vcpus}\nquota = {quota}\nduration = '{}ms'\nat = ['{end_ms}ms cancel all']",
        end_ms + AFTER_S * 1000.0
    );
    runner.run("budget-ebpf", &settings)
}

fn written(row: &Sample) -> u64 {
    row.written_pages.expect("our guest counts its pages")
}

fn line(cell: &Cell, vcpus: u32, ring: u32, quota: f64, seconds: f64) -> String {
    let end_s = SETTLED_S + seconds;
    let mut errors = Vec::new();
    let (mut stall_ms, mut free_ms) = (0.0_f64, 0.0_f64);
    for vcpu in 0..vcpus {
        for second in 0..seconds as u32 {
            let from_s = SETTLED_S + f64::from(second);
            let rate = cell.rate(vcpu, written, from_s, from_s + 1.0);
            errors.push(100.0 * (rate - quota).abs() / quota);
        }
        stall_ms = stall_ms.max(cell.longest_stall_ms(vcpu as usize, SETTLED_S, end_s));
        free_ms = free_ms.max(free_after_ms(cell, vcpu, end_s));
    }
    if !(0..vcpus).all(|vcpu| cell.reaches(vcpu, written, quota)) {
        return format!(
            "| {vcpus} | {ring} | {quota} | out of reach | out of reach | out of reach | | {} |",
            marked(free_ms, 50.0, 0)
        );
    }
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    // Twice the longest pause, or what two pages take to come in.
    let stall_bound_ms = 1.2 * (2.0 * MAX_STALL.as_secs_f64()).max(2.0 / (256.0 * quota)) * 1e3 + 1.0;
    format!(
        "| {vcpus} | {ring} | {quota} | {median:.2} | {} | {} | {stall_bound_ms:.1} | {} |",
        marked(worst, 1.0, 2),
        marked(stall_ms, stall_bound_ms, 1),
        marked(free_ms, 50.0, 0)
    )
}

/// How long after it was let go a vCPU dirties at half of its unlimited rate, over 10 ms; at most as long as it was watched.
fn free_after_ms(cell: &Cell, vcpu: u32, end_s: f64) -> f64 {
    let free = cell.rate(vcpu, written, -0.5, 0.0) * FREE;
    let own: Vec<&Sample> = cell.result.samples.iter().filter(|row| row.vcpu == vcpu).collect();
    let first = own.windows(2).find(|pair| {
        let span_s = pair[1].t_s - pair[0].t_s;
        pair[1].t_s > end_s && (written(pair[1]) - written(pair[0])) as f64 / 256.0 / span_s >= free
    });
    first.map_or(f64::INFINITY, |pair| (pair[1].t_s - end_s) * 1e3)
}

fn head(seconds: u32) -> String {
    let machine = serde_json::to_value(Facts::gather()).ok();
    let machine = machine.and_then(|facts| facts.as_object().map(machine_line));
    format!(
        "{}. By the guest's own counter, sampled every 10 ms, over each of {seconds} seconds after the first {:.0} ms; with two \
         vCPUs each has the quota. Free: at half of the unlimited rate again. In bold: beyond its bound (1 %, the stall's, \
         50 ms). Out of reach: the quota is above what the guest dirties unlimited.\n\n\
         | vCPUs | ring | quota, MiB/s | error, median second, % | worst second, % | longest stall, ms | bound | free after, ms |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n",
        machine.unwrap_or_default(),
        SETTLED_S * 1e3
    )
}

/// In bold where it is beyond its bound.
fn marked(value: f64, bound: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    if value > bound { format!("**{text}**") } else { text }
}
