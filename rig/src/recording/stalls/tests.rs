//! The log against arbitrary bytes, and its clock.

use std::{collections::BTreeMap, path::Path};

use proptest::prelude::*;

use super::{clock::millis, *};

fn stall(cell: u32, seconds: Range<u64>, micros: u64) -> Vec<StallInterval> {
    let stall = Stall {
        vcpu: 0,
        at: Duration::ZERO,
        length: Duration::from_micros(micros),
        asked: Duration::ZERO,
        slept: Duration::ZERO,
    };
    let interval = Duration::from_secs(seconds.start)..Duration::from_secs(seconds.end);
    of_limiter(cell, &interval, &[stall])
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("the log is text")
}

/// Starts as they stand in a log.
fn starts(log: &[u8]) -> Vec<f64> {
    let lines = text(log).lines().filter(|line| line.starts_with("Tag="));
    lines
        .map(|line| {
            line.split(',')
                .nth(1)
                .and_then(|start| start.parse().ok())
                .expect("a start")
        })
        .collect()
}

fn read(bytes: &[u8]) -> Result<Log, String> {
    parse(Path::new("stalls.hlog"), bytes).map_err(|error| error.to_string())
}

#[test]
fn a_cell_is_where_it_was_recorded_and_read_back_on_its_own_clock() {
    let mut clock = Clock::new(Duration::from_millis(1_764_000_000_123));
    let mut log = header(&clock);
    let warmed_up = Place::Now(Duration::from_millis(3_500));
    log.extend(encode(&stall(4, 0..1, 30), &mut clock, warmed_up));
    log.extend(encode(
        &stall(4, 1..2, 40),
        &mut clock,
        Place::Now(Duration::from_secs(99)),
    ));
    assert_eq!(starts(&log), [2.5, 3.5]);
    let lines: Vec<&str> = text(&log).lines().collect();
    assert_eq!(lines[2], "#[StartTime: 1764000000.123 (seconds since epoch)]");
    assert_eq!(lines[5], "#[Cell 4: t_s 0 is at 2.500]");
    // 30 us in milliseconds.
    assert!(
        lines[6].starts_with("Tag=cell4/vcpu0/stall,2.500,1.000,0.030,HISTF"),
        "{}",
        lines[6]
    );

    let read = read(&log).expect("it reads");
    assert_eq!(read.start, Some(clock.start()));
    assert_eq!(read.intervals, [stall(4, 0..1, 30), stall(4, 1..2, 40)].concat());
}

#[test]
fn no_start_is_before_the_one_above_it() {
    let mut clock = Clock::new(Duration::ZERO);
    let mut log = Vec::new();
    // Cells that took no time at all, as in a test; then one that did; then one copied from elsewhere.
    for (cell, now) in [(0, 0), (1, 0), (2, 60)] {
        for second in 0..3 {
            let place = Place::Now(Duration::from_secs(now));
            log.extend(encode(&stall(cell, second..second + 1, 30), &mut clock, place));
        }
    }
    log.extend(encode(&stall(3, 0..1, 30), &mut clock, Place::Behind));
    let starts = starts(&log);
    assert!(starts.is_sorted(), "{starts:?}");
    assert_eq!(starts[6..], [59.0, 60.0, 61.0, 62.0]);
}

#[test]
fn version_1_is_read_and_laid_end_to_end() {
    let line = |cell, seconds: Range<u64>| {
        let (mut clock, start) = (Clock::new(Duration::ZERO), seconds.start);
        let line = encode(&stall(cell, seconds, 30), &mut clock, Place::Now(Duration::ZERO));
        // As version 1 had it: no comment, the cell's own clock, nanoseconds.
        let line = text(&line).lines().nth(1).expect("a line").to_owned();
        let (_, rest) = line.split_once(",1.000,0.030,").expect("the form of today");
        format!("Tag=cell{cell}/vcpu0/stall,{start}.000,1.000,30015.000,{rest}\n")
    };
    let old = [line(7, 0..1), line(7, 2..3), line(5, 0..1)].concat();
    let read_old = read(old.as_bytes()).expect("it reads");
    let expected = [stall(7, 0..1, 30), stall(7, 2..3, 30), stall(5, 0..1, 30)].concat();
    assert_eq!((read_old.start, &read_old.intervals), (None, &expected));

    let mut clock = Clock::new(Duration::from_millis(1_764_000_000_001));
    let mut new = header(&clock);
    new.extend(encode(&read_old.intervals, &mut clock, Place::Kept(&read_old.zeros)));
    assert_eq!(starts(&new), [0.0, 2.0, 3.0]);
    let again = read(&new).expect("it reads");
    assert_eq!(again.intervals, expected);
    assert_eq!(
        again.zeros,
        BTreeMap::from([(5, Duration::from_secs(3)), (7, Duration::ZERO)])
    );
}

#[test]
fn an_interval_of_a_cell_whose_zero_is_gone_is_named() {
    let mut clock = Clock::new(Duration::from_secs(1));
    let mut log = header(&clock);
    log.extend(encode(&stall(4, 0..1, 30), &mut clock, Place::Behind));
    let without = text(&log).replace("#[Cell 4", "#[Sell 4");
    let problem = read(without.as_bytes()).expect_err("its place is not known");
    assert!(
        problem.contains("line 7: no line before it says where cell 4 has its 0"),
        "{problem}"
    );
}

/// A histogram in encoding V2, deflated, with a header and counts of one's choice.
fn packed(length: Option<u32>, digits: u32, highest: u64, counts: &[u8]) -> String {
    let mut plain = 0x1c84_9313_u32.to_be_bytes().to_vec();
    plain.extend(length.unwrap_or(counts.len() as u32).to_be_bytes());
    plain.extend([0; 4]);
    plain.extend(digits.to_be_bytes());
    plain.extend(1u64.to_be_bytes());
    plain.extend(highest.to_be_bytes());
    plain.extend(1f64.to_be_bytes());
    plain.extend(counts);
    let mut deflated = Vec::new();
    let mut zlib = flate2::read::ZlibEncoder::new(plain.as_slice(), flate2::Compression::fast());
    std::io::Read::read_to_end(&mut zlib, &mut deflated).expect("memory takes every write");
    let mut packed = 0x1c84_9314_u32.to_be_bytes().to_vec();
    packed.extend((deflated.len() as u32).to_be_bytes());
    packed.extend(deflated);
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, packed)
}

const HOUR_NS: u64 = LONGEST.as_nanos() as u64;

#[test]
fn a_histogram_that_asks_for_memory_is_refused() {
    let line = |packed: String| read(format!("Tag=cell0/vcpu0/stall,0.0,1.0,0.0,{packed}\n").as_bytes());
    assert!(line(packed(None, 3, HOUR_NS, &[2])).is_ok());
    for (what, packed) in [
        ("4 GiB of counts", packed(Some(u32::MAX), 3, HOUR_NS, &[2])),
        ("49 MiB of buckets", packed(None, 5, u64::MAX, &[2])),
        ("a gigabyte of zeros", packed(None, 3, HOUR_NS, &vec![0; 1 << 24])),
        ("a count of -2^63", packed(None, 3, HOUR_NS, &[0xff; 9])),
    ] {
        let problem = line(packed).map(|_| ()).expect_err(what);
        assert!(problem.contains("can't be unpacked"), "{what}: {problem}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_log_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
    }

    #[test]
    fn any_words_of_the_format_are_a_log_or_an_error(words in prop::collection::vec(prop::sample::select(vec![
        "#[Cell ", "3", ": t_s 0 is at ", "]", "\n", "Tag=", "cell3/vcpu0/stall", ",", "1.000", "18446744073709551615.999",
        "-1.0", "1e400", "NaN", "HISTFAAAAD54", "#[StartTime: ", " ", "\u{fffd}", ".",
    ]), 0..40)) {
        let _ = read(words.concat().as_bytes());
    }

    #[test]
    fn any_counts_are_a_histogram_or_an_error(
        length in prop::option::weighted(0.1, any::<u32>()),
        counts in prop::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..60),
    ) {
        let line = format!("Tag=cell0/vcpu0/stall,0.0,1.0,0.0,{}\n", packed(length, 3, HOUR_NS, &counts));
        let _ = read(line.as_bytes());
    }

    #[test]
    fn any_order_of_cells_stays_in_time(
        cells in prop::collection::vec((0..4u32, 0..5_000u64, 0..3_000u64, any::<bool>()), 1..40),
    ) {
        let mut clock = Clock::new(Duration::ZERO);
        let mut latest = Duration::ZERO;
        for (cell, now, start, behind) in cells {
            let place = if behind { Place::Behind } else { Place::Now(Duration::from_micros(now * 999)) };
            let start = Duration::from_micros(start * 1_001);
            let (placed, _) = clock.place(cell, &(start..start + Duration::from_secs(1)), place);
            prop_assert!(placed.start >= latest && placed.end >= placed.start);
            prop_assert_eq!(placed.start, millis(placed.start));
            latest = placed.start;
        }
    }
}
