//! Whole files: what is written is read back, cut off or damaged as they may be.

use std::{fs, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::*;

fn head() -> Head {
    Head {
        tool_version: "1.2.3".to_owned(),
        pid: 4711,
        process: "qemu-system-x86".to_owned(),
        vcpus: vec![0, 1],
        started_utc: "2026-01-01T00:00:00Z".to_owned(),
        started_ns: 1_000,
    }
}

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

/// Thread `t` is vCPU `t`; a flush after every `flush` writes.
fn recorded(writes: &[(u32, Write)], flush: usize, lost: u64) -> File {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.trace");
    let mut trace = Writer::create(&path, &head()).expect("a new file");
    for chunk in writes.chunks(flush) {
        for (thread, write) in chunk {
            trace.write(*thread, Some(*thread), *write).expect("it is written");
        }
        trace.flush(0).expect("it is written");
    }
    trace.finish(lost, Duration::from_secs(9)).expect("it is written");
    File { _dir: dir, path }
}

/// Writes with their threads, and the end if it was there.
type Whole = (Vec<(u32, Write)>, Option<Tail>);

/// What a trace holds.
fn read(path: &std::path::Path) -> Result<Whole, TraceError> {
    let mut reader = Reader::open(path)?;
    assert_eq!(*reader.head(), head());
    let (mut all, mut tail) = (Vec::new(), None);
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Writes { thread, vcpu, writes } => {
                assert_eq!(vcpu, Some(thread));
                all.extend(writes.into_iter().map(|write| (thread, write)));
            }
            Record::Lost(_) => {}
            Record::End(end) => tail = Some(end),
        }
    }
    Ok((all, tail))
}

/// Sorted by thread; the order within a thread stays.
fn by_thread(mut writes: Vec<(u32, Write)>) -> Vec<(u32, Write)> {
    writes.sort_by_key(|(thread, _)| *thread);
    writes
}

/// Up to 300 writes of three threads, in the order of time.
fn any_writes() -> impl Strategy<Value = Vec<(u32, Write)>> {
    let one = (
        0_u32..3,
        0_u64..1_000_000,
        0_u32..4,
        prop_oneof![0_u64..100, any::<u64>()],
    );
    prop::collection::vec(one, 0..300).prop_map(|all| {
        let mut at_ns = 0;
        let write = |(thread, step, slot, page)| {
            at_ns += step;
            (thread, Write { at_ns, slot, page })
        };
        all.into_iter().map(write).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back(writes in any_writes(), flush in 1_usize..100, lost: u64) {
        let file = recorded(&writes, flush, lost);
        let (all, tail) = read(&file.path).expect("a good trace");
        prop_assert_eq!(by_thread(all), by_thread(writes.clone()));
        let tail = tail.expect("it ended");
        prop_assert_eq!((tail.writes, tail.lost), (writes.len() as u64, lost));
        for slot in tail.slots {
            let highest = writes.iter().filter(|(_, w)| w.slot == slot.slot).map(|(_, w)| w.page).max();
            prop_assert_eq!(Some(slot.highest_page), highest);
        }
    }

    #[test]
    fn one_that_was_cut_off_is_read_up_to_there(writes in any_writes(), cut in 0.0_f64..1.0) {
        let file = recorded(&writes, 10, 0);
        let bytes = fs::read(&file.path).expect("the file");
        let length = (cut * bytes.len() as f64) as usize;
        fs::write(&file.path, &bytes[..length]).expect("the file");
        match read(&file.path) {
            Ok((all, tail)) => {
                prop_assert!(tail.is_none());
                // Of each thread, a beginning of what it wrote.
                for thread in 0..3 {
                    let of = |all: &[(u32, Write)]| -> Vec<Write> {
                        all.iter().filter(|(t, _)| *t == thread).map(|(_, w)| *w).collect()
                    };
                    prop_assert!(of(&writes).starts_with(&of(&all)));
                }
            }
            // Only without its head is it nothing.
            Err(error) => prop_assert!(length < 300, "{} bytes: {}", length, error),
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(writes in any_writes(), at in 0.0_f64..1.0, bit in 0_u8..8) {
        let file = recorded(&writes, 10, 0);
        let mut bytes = fs::read(&file.path).expect("the file");
        let index = (at * bytes.len() as f64) as usize;
        bytes[index] ^= 1 << bit;
        fs::write(&file.path, &bytes).expect("the file");
        // A length that grew past the end looks like a trace that was cut off, and says so by its lack of an end.
        let unnoticed = matches!(read(&file.path), Ok((_, Some(_))));
        prop_assert!(!unnoticed, "byte {}", index);
    }
}

#[test]
fn nothing_is_overwritten() {
    let file = recorded(&[], 1, 0);
    let error = Writer::create(&file.path, &head()).expect_err("it exists").to_string();
    assert!(
        error.contains("never overwritten") && error.contains("--trace"),
        "{error}"
    );
}

#[test]
fn what_is_no_trace_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("x");
    let error = |path: &std::path::Path| Reader::open(path).expect_err("refused").to_string();
    assert!(error(&path).contains("can't read"));
    fs::write(&path, b"cell,vcpu\n").expect("a file");
    assert!(error(&path).contains("is no dirty trace"));
    let mut newer = MAGIC.to_vec();
    newer.extend([2, 0, 0, 0, 0, 0]);
    fs::write(&path, newer).expect("a file");
    assert!(error(&path).contains("format 2") && error(&path).contains("reads 1"));
}

fn write(at_ns: u64, slot: u32, page: u64) -> Write {
    Write { at_ns, slot, page }
}

#[test]
fn a_trace_says_what_guest_it_needs() {
    let writes = [
        (1, write(100, 0, 5)),
        (0, write(200, 2, 70)),
        (1, write(300, 0, 5)),
        (1, write(400, 2, 70)),
    ];
    let file = recorded(&writes, 3, 7);
    let outline = Outline::read(&file.path).expect("a good trace");
    let vcpus: Vec<_> = outline.vcpus.iter().map(|vcpu| (vcpu.id, vcpu.writes)).collect();
    assert_eq!(vcpus, [(Some(0), 1), (Some(1), 3)]);
    assert_eq!((outline.pages(), outline.writes(), outline.memory_mib()), (2, 4, 1));
    assert_eq!(outline.span_ns, (100, 400));
    assert!(outline.whole);
    let notes = outline.notes();
    assert!(notes[0].contains("7 of 11 writes"), "{notes:?}");

    let empty = recorded(&[], 1, 0);
    let error = Outline::read(&empty.path).expect_err("nothing to replay").to_string();
    assert!(error.contains("dirty logging was off"), "{error}");
}

#[test]
fn tables_keep_order_time_and_shared_pages() {
    let writes = [
        (1, write(1_000, 0, 5)),
        (0, write(2_000, 2, 70)),
        (1, write(3_000, 0, 9)),
        (1, write(9_000, 2, 70)),
    ];
    let file = recorded(&writes, 3, 0);
    // 64 ticks, a unit of the table, are a nanosecond.
    let outline = Outline::read(&file.path).expect("a good trace");
    let replay = Replay::load(&outline, 64_000_000_000).expect("a good trace");
    let entries = |vcpu: usize| -> Vec<(u32, u64)> {
        replay.tables[vcpu]
            .iter()
            .map(|entry| (*entry as u32, entry >> 32))
            .collect()
    };
    assert_eq!(outline.pages(), 3);
    assert_eq!(entries(0), [(2, 1_000), (u32::MAX, 7_000)]);
    assert_eq!(entries(1), [(0, 0), (1, 2_000), (2, 6_000), (u32::MAX, 0)]);
}

#[test]
fn rows_have_every_write_with_its_address_space() {
    let file = recorded(&[(1, write(100, 0x1_0002, 5)), (0, write(200, 3, u64::MAX))], 2, 7);
    let mut rows = Vec::new();
    let mut reader = Reader::open(&file.path).expect("a good trace");
    let exported = export::csv(&mut reader, &mut rows).expect("memory takes every write");
    assert_eq!(
        String::from_utf8(rows).expect("text"),
        "at_ns,thread,vcpu,address_space,slot,page\n200,0,0,0,3,18446744073709551615\n100,1,1,1,2,5\n"
    );
    assert_eq!((exported.writes, exported.lost, exported.whole), (2, 7, true));
}

/// What reading bytes comes to; it must come to something.
fn read_any(bytes: &[u8]) -> Result<u64, String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("any.trace");
    fs::write(&path, bytes).expect("a file");
    let mut reader = Reader::open(&path).map_err(|error| error.to_string())?;
    let exported = export::csv(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())?;
    Ok(exported.writes)
}

/// A trace of one block with a right checksum and any contents.
fn with_block(kind: u8, body: &[u8]) -> Vec<u8> {
    let file = recorded(&[], 1, 0);
    let mut bytes = fs::read(&file.path).expect("the file");
    // Its end is one block; what comes before is the head.
    let head = u32::from_le_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]) as usize + 14 + 4;
    bytes.truncate(head);
    bytes.extend(block::framed(kind, body));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_a_trace_or_an_error(bytes: Vec<u8>) {
        prop_assert!(read_any(&bytes).is_err());
        prop_assert!(read_any(&[&MAGIC, &VERSION.to_le_bytes()[..], &bytes].concat()).is_err());
    }

    #[test]
    fn any_block_is_writes_or_an_error(kind in prop::sample::select(b"WLEX".to_vec()), body: Vec<u8>) {
        let _ = read_any(&with_block(kind, &body));
    }

    #[test]
    fn a_block_that_says_to_be_large_asks_for_no_more_than_it_may(
        count: u32, columns: u32, rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut body = [0; 8].to_vec();
        body.extend(count.to_le_bytes());
        body.extend(0_u64.to_le_bytes());
        body.extend(columns.to_le_bytes());
        body.extend(rest);
        let _ = read_any(&with_block(b'W', &body));
    }
}
