//! How costs grow with vCPUs and VMs: `limit` on up to 64 vCPUs, `observe` on up to 1,000.
//!
//! `cargo bench -p dirtyrig-rig --bench scale [-- --seconds N] [-- --most VCPUS] [-- --out FILE.md]`
//!
//! It takes some three minutes, needs a QEMU and eBPF, and 2 GiB of memory. The VMs that `observe` watches are processes of
//! this benchmark that run the rig's guest.

mod limit;
mod observe;
mod vmm;

use std::{fs, path::PathBuf};

use anyhow::Context;
use dirtyrig_rig::{machine::Facts, plot::machine_line};
use dirtyrig_testkit::Need;

fn main() -> anyhow::Result<()> {
    let mut seconds = 5_u32;
    let mut most = 64_u32;
    let mut out: Option<PathBuf> = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("`{word}` needs a value"));
        match word.as_str() {
            vmm::FLAG => return vmm::run(value()?.parse().context("the number of vCPUs is a whole number")?),
            "--seconds" => {
                let number = value()?.parse();
                seconds = number.context("`--seconds` takes a whole number, such as 5")?;
            }
            // 64 vCPUs that run free for a moment take all of a host of two CPUs.
            "--most" => most = value()?.parse().context("`--most` takes a whole number, such as 32")?,
            "--out" => out = Some(value()?.into()),
            // Cargo says it to every benchmark.
            "--bench" => {}
            _ => anyhow::bail!("`{word}` is not known: give `--seconds N`, `--most VCPUS` or `--out FILE`"),
        }
    }
    if [Need::Kvm, Need::Bpf, Need::Qemu].iter().any(|need| !need.is_met()) {
        println!("KVM, eBPF or a QEMU is missing: nothing measured");
        return Ok(());
    }
    let machine = serde_json::to_value(Facts::gather()).ok();
    let machine = machine.and_then(|facts| facts.as_object().map(machine_line));
    let text = format!(
        "{}.\n\n{}\n{}",
        machine.unwrap_or_else(|| "Machine not known".to_owned()),
        limit::table(seconds, most)?,
        observe::table(seconds)?
    );
    print!("{text}");
    if let Some(path) = out {
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// CPU time of a thread, from its `schedstat`, s.
fn cpu_s(task: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
    let nanos: f64 = text.split(' ').next()?.parse().ok()?;
    Some(nanos / 1e9)
}
