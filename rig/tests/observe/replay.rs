//! A trace goes into the guest and comes out of the kernel again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use dirtyrig_rig::trace::{Head, Reader, Record, Write, Writer};
use libtest_mimic::Failed;

use super::support::{Guest, observe, spoken};

/// Entries of the ring that the replaying guest has; fewer can be in it at once.
const RING: usize = 1024;
/// Different pages of each vCPU: so many more than the ring has entries that each was reset before it comes again.
const PAGES: usize = 4 * RING;
const ROUNDS: usize = 3;
/// Between two writes of a vCPU: some 40 MiB/s, which every machine can follow.
const STEP_NS: u64 = 100_000;
/// How far a replay that fell behind may catch up, and a little for the clocks.
const CATCH_UP_NS: u64 = 101_000_000;

/// Writes to two slots, to and fro, of two vCPUs that share no page.
fn made() -> BTreeMap<u32, Vec<Write>> {
    (0..2_u32)
        .map(|vcpu| {
            let writes = (0..ROUNDS * PAGES).map(|n| {
                // An odd factor visits every page of a power of two once, in the same order each round.
                let page = n * 1237 % PAGES;
                Write {
                    at_ns: 5_000_000 + n as u64 * STEP_NS,
                    slot: 7 + u32::from(page.is_multiple_of(3)),
                    page: (page * 10 + vcpu as usize) as u64,
                }
            });
            (vcpu, writes.collect())
        })
        .collect()
}

fn write_trace(path: &Path, vcpus: &BTreeMap<u32, Vec<Write>>) -> Result<(), Failed> {
    let head = Head {
        tool_version: "test".to_owned(),
        pid: 1,
        process: "made".to_owned(),
        vcpus: vcpus.keys().copied().collect(),
        started_utc: String::new(),
        started_ns: 0,
    };
    let mut writer = Writer::create(path, &head)?;
    for (&vcpu, writes) in vcpus {
        for write in writes {
            writer.write(100 + vcpu, Some(vcpu), *write)?;
        }
    }
    writer.finish(0, Duration::from_secs(2))?;
    Ok(())
}

/// The writes of each vCPU.
fn read_trace(path: &Path) -> Result<BTreeMap<u32, Vec<Write>>, Failed> {
    let mut reader = Reader::open(path)?;
    let mut vcpus: BTreeMap<u32, Vec<Write>> = BTreeMap::new();
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Writes { vcpu, writes, .. } => vcpus
                .entry(vcpu.ok_or("a thread without vCPU")?)
                .or_default()
                .extend(writes),
            Record::Lost(count) => return Err(format!("{count} writes were lost").into()),
            Record::End(_) => {}
        }
    }
    Ok(vcpus)
}

/// What the replay of `traced` does, for as long as `duration`.
fn replayed(traced: &Path, again: &Path, duration: &str) -> Result<BTreeMap<u32, Vec<Write>>, Failed> {
    let replay = traced.display().to_string();
    let guest = Guest::start(&["--replay", &replay, "--ring", "1024"])?;
    let path = again.display().to_string();
    let output = observe(&["--pid", &guest.pid(), "--trace", &path, "--duration", duration])?;
    let (_, said) = spoken(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    read_trace(again)
}

/// A page that is logged, and taken out of the ring before it is written, is logged once more right after: the same write.
fn once(writes: &[Write]) -> Vec<Write> {
    let mut writes = writes.to_vec();
    writes.dedup_by_key(|write| (write.slot, write.page));
    writes
}

/// Each page's number among all of the trace: what the replay's region calls it.
fn numbers(vcpus: &BTreeMap<u32, Vec<Write>>) -> BTreeMap<(u32, u64), u64> {
    let pages: BTreeSet<(u32, u64)> = vcpus.values().flatten().map(|write| (write.slot, write.page)).collect();
    pages.into_iter().zip(0..).collect()
}

/// Checks that `seen` is a stretch of `expected`, repeated for ever, and never ahead of its schedule.
fn follows(expected: &[Write], seen: &[Write], number: &BTreeMap<(u32, u64), u64>, span_ns: u64) -> Result<(), Failed> {
    let expected: Vec<(u64, u64)> = once(expected)
        .iter()
        .map(|write| (number[&(write.slot, write.page)], write.at_ns))
        .collect();
    let seen = once(seen);
    if seen.len() < RING {
        return Err(format!("only {} pages were seen", seen.len()).into());
    }
    let same = |start: usize| {
        let pairs = seen.iter().enumerate();
        pairs
            .take_while(|(n, write)| expected[(start + n) % expected.len()].0 == write.page)
            .count()
    };
    // Rounds look alike, so that it may have begun in any of them.
    let starts: Vec<usize> = (0..expected.len()).filter(|&start| same(start) == seen.len()).collect();
    if starts.is_empty() {
        let (most, start) = (0..expected.len())
            .map(|start| (same(start), start))
            .max()
            .unwrap_or_default();
        let around = &seen[most.saturating_sub(3)..(most + 3).min(seen.len())];
        return Err(format!(
            "of {} pages, {most} are those from {start} on; there: {around:?}",
            seen.len()
        )
        .into());
    }
    let in_time = |start: &usize| {
        let due = |n: usize| {
            let (run, entry) = ((start + n) / expected.len(), (start + n) % expected.len());
            run as u64 * span_ns + expected[entry].1
        };
        // The furthest that it has been behind must not be made up for by more than it may.
        let mut latest = i128::from(i64::MIN);
        seen.iter().enumerate().all(|(n, write)| {
            let late = i128::from(write.at_ns) - i128::from(due(n));
            let in_time = late >= latest - i128::from(CATCH_UP_NS);
            latest = latest.max(late);
            in_time
        })
    };
    if starts.iter().any(in_time) {
        Ok(())
    } else {
        Err("pages came before they were due".into())
    }
}

pub(crate) fn same_pages() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (traced, again) = (dir.path().join("made.trace"), dir.path().join("again.trace"));
    let made = made();
    write_trace(&traced, &made)?;
    let seen = replayed(&traced, &again, "3s")?;
    assert_eq!(seen.len(), made.len(), "a vCPU each");
    let number = numbers(&made);
    let span_ns = (ROUNDS * PAGES - 1) as u64 * STEP_NS;
    for (vcpu, writes) in &made {
        follows(writes, &seen[vcpu], &number, span_ns).map_err(|error| format!("vCPU {vcpu}: {error:?}"))?;
    }
    Ok(())
}

pub(crate) fn what_a_guest_did() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let (traced, again) = (dir.path().join("guest.trace"), dir.path().join("again.trace"));
    // 8 MiB per vCPU, twice what the ring covers.
    let guest = Guest::start(&[
        "--vcpus", "2", "--ring", "1024", "--guest", "paced:40", "--memory", "16",
    ])?;
    let path = traced.display().to_string();
    let output = observe(&["--pid", &guest.pid(), "--trace", &path, "--duration", "1s"])?;
    assert_eq!(output.status.code(), Some(0), "{}", spoken(&output).1);
    drop(guest);
    // Whole rounds, so that the end and the beginning of the trace follow one another like all else.
    let cropped: BTreeMap<u32, Vec<Write>> = read_trace(&traced)?
        .into_iter()
        .map(|(vcpu, writes)| {
            let mut writes = once(&writes);
            let pages = writes.iter().map(|write| write.page).collect::<BTreeSet<_>>().len();
            writes.truncate(writes.len() / pages * pages);
            (vcpu, writes)
        })
        .collect();
    assert!(
        cropped.len() == 2 && cropped.values().all(|writes| writes.len() > RING),
        "two rounds or more"
    );
    let whole = dir.path().join("whole.trace");
    write_trace(&whole, &cropped)?;
    let seen = replayed(&whole, &again, "3s")?;
    let number = numbers(&cropped);
    let all = || cropped.values().flatten().map(|write| write.at_ns);
    let span_ns = all().max().unwrap_or(0) - all().min().unwrap_or(0);
    for (vcpu, writes) in &cropped {
        follows(writes, &seen[vcpu], &number, span_ns).map_err(|error| format!("vCPU {vcpu}: {error:?}"))?;
    }
    Ok(())
}
