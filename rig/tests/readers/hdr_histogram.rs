//! `stalls.hlog` in the log processor of `HdrHistogram`, in Java.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use dirtyrig_rig::recording::{Recording, STALLS, StallInterval};
use dirtyrig_testkit::{HDR_HISTOGRAM_JAR, Need, trial};
use libtest_mimic::{Failed, Trial};

use super::{output_of, recordings, reference};

pub(crate) fn trials() -> Vec<Trial> {
    const JAVA: &[Need] = &[Need::HdrHistogram];
    vec![
        trial(
            "HdrHistogram's log processor reads every tag of the reference, whole and in parts",
            JAVA,
            the_reference,
        ),
        trial(
            "HdrHistogram's log processor reads every tag of a recording of today",
            JAVA,
            recorded_now,
        ),
    ]
}

fn processor(log: &Path, arguments: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new("java");
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-cp",
        HDR_HISTOGRAM_JAR,
        "org.HdrHistogram.HistogramLogProcessor",
        "-i",
    ]);
    output_of(command.arg(log).args(arguments), b"")
}

/// The largest value in milliseconds and the count, as the processor says them at its end.
fn figures(said: &str) -> Result<(String, String), Failed> {
    let line = said.lines().find(|line| line.starts_with("#[Max")).ok_or(said)?;
    let mut words = line.split(['=', ',', ']']).map(str::trim);
    let (max, count) = (words.nth(1), words.nth(1));
    Ok((max.ok_or(line)?.to_owned(), count.ok_or(line)?.to_owned()))
}

/// The same of our own reading of `lines`.
fn expected<'a>(lines: impl IntoIterator<Item = &'a StallInterval>) -> (String, String) {
    let (mut max, mut count) = (0, 0);
    for line in lines {
        max = line.histogram.max().max(max);
        count += line.histogram.len();
    }
    (format!("{:.3}", max as f64 / 1e6), count.to_string())
}

fn same(what: &str, found: &(String, String), expected: &(String, String)) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: the processor says max and count {found:?}, our reader {expected:?}").into())
}

/// What our own reader has of each tag.
fn tags(dir: &Path) -> Result<BTreeMap<String, Vec<StallInterval>>, Failed> {
    let mut tags: BTreeMap<String, Vec<StallInterval>> = BTreeMap::new();
    for line in Recording::open(dir)?.stalls()? {
        let tag = format!("cell{}/vcpu{}/{}", line.cell, line.vcpu, line.kind);
        tags.entry(tag).or_default().push(line);
    }
    Ok(tags)
}

/// Where each cell has its 0.
fn zeros(dir: &Path) -> Result<BTreeMap<u32, f64>, Failed> {
    let text = std::fs::read_to_string(dir.join(STALLS))?;
    let zeros = text.lines().filter_map(|line| {
        let (cell, zero) = line
            .strip_prefix("#[Cell ")?
            .strip_suffix(']')?
            .split_once(": t_s 0 is at ")?;
        Some((cell.parse().ok()?, zero.parse().ok()?))
    });
    Ok(zeros.collect())
}

/// Checks that every tag of `dir` is listed, and each of them, whole, and its first line alone. A run takes half a second of CPU time
/// to start, hence the workers.
fn check(dir: &Path) -> Result<(), Failed> {
    let log = dir.join(STALLS);
    let (tags, zeros) = (tags(dir)?, zeros(dir)?);
    let listed = processor(&log, &["-listtags"])?;
    let listed: BTreeSet<&str> = listed.lines().skip(1).collect();
    if !listed.iter().copied().eq(tags.keys().map(String::as_str)) {
        return Err(format!("tags: {listed:?}").into());
    }
    let one = |(tag, lines): (&String, &Vec<StallInterval>)| -> Result<(), Failed> {
        let whole = processor(&log, &["-tag", tag])?;
        same(tag, &figures(&whole)?, &expected(lines))?;
        // A part of it, on the recording's clock: from the first line's start to just before the second's.
        let from = zeros[&lines[0].cell] + lines[0].interval.start.as_secs_f64();
        let (from, to) = ((from - 0.0005).max(0.0).to_string(), (from + 0.0005).to_string());
        let part = processor(&log, &["-tag", tag, "-start", &from, "-end", &to])?;
        same(&format!("{tag} at {from} s"), &figures(&part)?, &expected(&lines[..1]))
    };
    let left = Mutex::new(tags.iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let work = || std::iter::from_fn(next).try_for_each(one);
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })
}

fn the_reference() -> Result<(), Failed> {
    let dir = reference("");
    check(&dir)?;
    let said = processor(
        &dir.join(STALLS),
        &["-tag", "cell0/vcpu0/stall", "-start", "0", "-end", "3"],
    )?;
    figures(&said).map(drop)
}

fn recorded_now() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("three");
    recordings::repetitions(&recording, 3, 1000.0);
    check(&recording)
}
