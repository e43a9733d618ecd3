//! `observe` on 10, 100 and 1,000 vCPUs, ten in a process.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{cpu_s, vmm};

const PROCESSES: [usize; 3] = [1, 10, 100];
const VCPUS: usize = 10;
/// Its start, until when its costs do not count.
const START: Duration = Duration::from_secs(2);

/// A child that does not outlive the benchmark.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> anyhow::Result<Killed> {
    let mut child = Command::new(env::current_exe()?)
        .args([vmm::FLAG, &VCPUS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let stdout = child.stdout.take().context("its stdout is a pipe")?;
    let vmm = Killed(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    anyhow::ensure!(line.trim_end() == vmm::READY, "a VMM said `{line}`");
    Ok(vmm)
}

/// CPU time of all threads of a process.
fn cpu_of(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks.filter_map(|task| cpu_s(&task.path().display().to_string())).sum()
}

/// Runs it and puts it into a table.
pub(super) fn table(seconds: u32) -> anyhow::Result<String> {
    let mut text = format!(
        "`observe --csv` on VMs of {VCPUS} vCPUs, each writing 64 pages per second, over {seconds} seconds.\n\n\
         | processes | vCPUs | vCPUs per interval, least and most | CPU of observe, % | per vCPU and second, us | longest gap between \
         intervals, s |\n|--:|--:|--:|--:|--:|--:|\n"
    );
    let mut vmms = Vec::new();
    for processes in PROCESSES {
        eprintln!("observe: {processes} processes");
        while vmms.len() < processes {
            vmms.push(start()?);
        }
        let measured = measure(seconds)?;
        let vcpus = processes * VCPUS;
        let _ = writeln!(
            text,
            "| {processes} | {vcpus} | {} to {} | {:.1} | {:.0} | {:.2} |",
            measured.least,
            measured.most,
            100.0 * measured.share,
            measured.share / vcpus as f64 * 1e6,
            measured.gap_s
        );
    }
    Ok(text)
}

struct Measured {
    /// Fewest and most vCPUs of an interval that dirtied anything.
    least: usize,
    most: usize,
    /// CPU time over time.
    share: f64,
    gap_s: f64,
}

fn measure(seconds: u32) -> anyhow::Result<Measured> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["observe", "--csv"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().context("its stdout is a pipe")?;
    let observe = Killed(child);
    // Columns by their order: t_s is the first, dirty_mib_s the seventh.
    let rows = csv::Reader::from_reader(stdout).into_records().map_while(Result::ok);
    let rows = rows.filter_map(|row| Some((row.get(0)?.parse().ok()?, row.get(6)?.parse().unwrap_or(0.0))));
    let (start_s, end_s) = (START.as_secs_f64(), START.as_secs_f64() + f64::from(seconds));
    let mut rows = rows.skip_while(|(t_s, _): &(f64, f64)| *t_s < start_s).peekable();
    rows.peek().context("observe ended before it had watched for long")?;
    let (begun, before) = (Instant::now(), cpu_of(observe.0.id()));
    // By its own clock, however late it began; and the interval behind it, which is cut off.
    let rows: Vec<(f64, f64)> = rows.take_while(|(t_s, _)| *t_s <= end_s + 1.0).collect();
    let share = (cpu_of(observe.0.id()) - before) / begun.elapsed().as_secs_f64();
    drop(observe);
    let intervals: Vec<&[(f64, f64)]> = rows.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()).collect();
    // The last may be cut off.
    let whole = intervals.split_last().map_or(&intervals[..], |(_, whole)| whole);
    let active = |rows: &[(f64, f64)]| rows.iter().filter(|(_, rate)| *rate > 0.0).count();
    let gaps = whole.windows(2).map(|pair| pair[1][0].0 - pair[0][0].0);
    Ok(Measured {
        least: whole.iter().map(|rows| active(rows)).min().context("no interval")?,
        most: whole.iter().map(|rows| active(rows)).max().context("no interval")?,
        share,
        gap_s: gaps.fold(0.0, f64::max),
    })
}
