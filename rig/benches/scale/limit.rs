//! `limit` on 1, 8, 32 and 64 vCPUs of a QEMU, each pausing every 5 ms.

use std::{env, fmt::Write as _, fs, time::Duration};

use super::cpu_s;
use anyhow::Context;
use dirtyrig_rig::{
    engine::{cell::Watch, interrupt::Interrupt, sink::Discard, target::Target},
    model::Sample,
    scenario::{End, Scenario, script::Event, settings::Settings},
    session::build_target,
    sweep::execute::run_on,
};

const VCPUS: [u32; 4] = [1, 8, 32, 64];
/// Each vCPU's: at this rate a refill of 5 ms is some 3 pages, so a vCPU pauses for 5 ms after every few pages.
const QUOTA: f64 = 2.0;
/// From then on it is to hold.
const SETTLED_S: f64 = 1.0;
/// The name of the thread that limits.
const LIMITING: &str = "outside";

/// CPU time of the thread that limits, at each sample.
#[derive(Default)]
struct Costs(Vec<(f64, f64)>);

impl Watch for Costs {
    fn sampled(&mut self, rows: &[Sample]) {
        let at_s = rows.first().map(|row| row.t_s);
        self.0.extend(at_s.zip(limiting().and_then(|task| cpu_s(&task))));
    }

    fn changed(&mut self, _: Event) {}
}

/// The folder of that thread.
fn limiting() -> Option<String> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let mut folders = tasks.map(|task| task.path().display().to_string());
    folders.find(|task| fs::read_to_string(format!("{task}/comm")).is_ok_and(|name| name.trim_end() == LIMITING))
}

/// Runs it and puts it into a table.
pub(super) fn table(seconds: u32, most: u32) -> anyhow::Result<String> {
    let mut text = format!(
        "`limit`: each vCPU of a QEMU held to {QUOTA} MiB/s on a ring of 4096, so that it pauses for 5 ms after every few pages. By the \
         guests' own counters, over each of {seconds} seconds after the first. Of the stalls, those in that time.\n\n\
         | vCPUs | error, median second, % | worst second of a vCPU, % | pauses per s | CPU time per pause, us | CPU of the limiter, % | \
         longest stall, ms | 99 % of stalls, ms |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    let interrupt = Interrupt::from_signals()?;
    // As for the trials, a list of more versions than the one along `PATH`: the first.
    let more = env::var_os("DIRTYRIG_QEMU").unwrap_or_default();
    let first = env::split_paths(&more).find(|path| !path.as_os_str().is_empty());
    let qemu = first.map_or_else(|| "qemu".to_owned(), |path| format!("qemu:{}", path.display()));
    for (seed, vcpus) in (1_u64..).zip(VCPUS.into_iter().filter(|&vcpus| vcpus <= most)) {
        eprintln!("limit: {vcpus} vCPUs");
        let end_s = SETTLED_S + f64::from(seconds);
        let settings = format!(
            "vmm = '{qemu}'\nlimiter = 'budget-ebpf'\nring = 4096\nvcpus = {vcpus}\nmemory = {}\nquota = {QUOTA}\nwarm-up = '600ms'\n\
             duration = '{}ms'\nprobes = 'off'",
            32 * vcpus,
            end_s * 1e3
        );
        let settings: Settings = toml::from_str(&settings).with_context(|| format!("bad settings:\n{settings}"))?;
        let scenario = Scenario {
            sample_every: Duration::from_millis(100),
            ..Scenario::new(&settings, seed, End::AtDuration)?
        };
        let mut costs = Costs::default();
        let target = started(&scenario)?;
        let (result, _) = run_on(target, (0, 0), &scenario, &mut Discard, &mut costs, &interrupt)?;

        let mut errors = Vec::new();
        let mut slowest = f64::MAX;
        // Of a host whose CPUs so many vCPUs take, some seconds may have too few samples.
        let mut unseen = 0;
        for vcpu in 0..vcpus {
            let own: Vec<&Sample> = result.samples.iter().filter(|row| row.vcpu == vcpu).collect();
            slowest = slowest.min(rate(&own, f64::MIN, 0.0).unwrap_or(f64::MAX));
            for second in 0..seconds {
                let from_s = SETTLED_S + f64::from(second);
                match rate(&own, from_s, from_s + 1.0) {
                    Some(rate) => errors.push(100.0 * (rate - QUOTA).abs() / QUOTA),
                    None => unseen += 1,
                }
            }
        }
        if slowest < QUOTA {
            let line = format!("| {vcpus} | out of reach: {slowest:.1} MiB/s unlimited | | | | | | |");
            eprintln!("{line}");
            let _ = writeln!(text, "{line}");
            continue;
        }
        anyhow::ensure!(
            !errors.is_empty(),
            "{vcpus} vCPUs left no time for a sample: give --most {}",
            vcpus / 2
        );
        if unseen > 0 {
            eprintln!("{unseen} seconds of vCPUs had no two samples, and {} had", errors.len());
        }
        errors.sort_by(f64::total_cmp);
        let mut stalls: Vec<f64> = result
            .stalls
            .iter()
            .filter(|stall| stall.at.as_secs_f64() >= SETTLED_S)
            .map(|stall| stall.length.as_secs_f64() * 1e3)
            .collect();
        stalls.sort_by(f64::total_cmp);
        let costs: Vec<&(f64, f64)> = costs.0.iter().filter(|(at_s, _)| *at_s >= SETTLED_S).collect();
        let (Some((from_s, before)), Some((to_s, after))) = (costs.first(), costs.last()) else {
            anyhow::bail!("the CPU time of the thread `{LIMITING}` was not seen");
        };
        let share = (after - before) / (to_s - from_s);
        let pauses_s = stalls.len() as f64 / f64::from(seconds);
        let line = format!(
            "| {vcpus} | {:.2} | {:.2} | {pauses_s:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
            errors[errors.len() / 2],
            errors[errors.len() - 1],
            share / pauses_s * 1e6,
            100.0 * share,
            stalls.last().copied().context("no vCPU paused")?,
            stalls[stalls.len() * 99 / 100]
        );
        eprintln!("{line}");
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

/// The QEMU, once it has started: 7.2 aborts if its reaper thread, which looks once a second, meets a vCPU without a ring, and
/// many vCPUs take long to be made.
fn started(scenario: &Scenario) -> anyhow::Result<Box<dyn Target>> {
    const TRIES: u32 = 5;
    let mut tries = 1;
    loop {
        match build_target(&scenario.vm) {
            Err(_) if tries < TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

/// Mean rate of a vCPU between the first and the last sample of a span, by its guest's counter, MiB/s; `None` without two.
fn rate(own: &[&Sample], from_s: f64, until_s: f64) -> Option<f64> {
    let (from, to) = (
        own.iter().find(|row| row.t_s >= from_s)?,
        own.iter().rfind(|row| row.t_s <= until_s)?,
    );
    let gain = to.written_pages?.checked_sub(from.written_pages?)?;
    (to.t_s > from.t_s).then(|| gain as f64 / 256.0 / (to.t_s - from.t_s))
}
