//! What each limiter holds, how fast, and at what price: one table, medians of at least five repetitions, all in one run.
//!
//! `cargo bench -p dirtyrig-rig --bench limiters [-- --repetitions N] [-- --group NAME] [-- --out FILE.md]`
//!
//! A repetition runs every group once, one guest after the other, so that a machine that slowly changes favours nobody.
//! Five take about 18 minutes on two CPUs. `budget-ebpf` is left out where eBPF can't be used.

#[path = "../shared/cell.rs"]
mod cell;
mod cells;
mod groups;
mod table;

use std::{fs, path::PathBuf};

use anyhow::Context;
use cells::Bench;
use dirtyrig_testkit::Need;

fn main() -> anyhow::Result<()> {
    let mut repetitions = 5_u32;
    let mut only: Vec<String> = Vec::new();
    let mut out: Option<PathBuf> = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match word.as_str() {
            "--repetitions" => repetitions = value()?.parse().context("`--repetitions` takes a number, such as 5")?,
            "--group" => only.push(value()?),
            "--out" => out = Some(value()?.into()),
            // Cargo says it to every benchmark.
            "--bench" => {}
            _ => anyhow::bail!("`{word}` is not known: give `--repetitions N`, `--group NAME` or `--out FILE`"),
        }
    }
    let known = groups::GROUPS.map(|(name, _)| name);
    if let Some(name) = only.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no group `{name}`: choose from {}", known.join(", "));
    }
    if !Need::Kvm.is_met() {
        println!("/dev/kvm is missing: nothing measured");
        return Ok(());
    }
    let mut bench = Bench::new(Need::Bpf.is_met())?;
    for repetition in 1..=repetitions {
        for (name, group) in groups::GROUPS {
            if only.is_empty() || only.iter().any(|one| one == name) {
                eprintln!("repetition {repetition} of {repetitions}: {name}");
                group(&mut bench)?;
            }
        }
    }
    let text = table::markdown(&bench);
    print!("{text}");
    if let Some(path) = out {
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}
