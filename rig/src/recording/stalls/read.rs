//! Reads the log, of either version. The bytes may be anything: what can't be read is named by its line, and no line can
//! ask for more memory than the largest histogram of ours takes.

use std::{collections::BTreeMap, io::Read, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogHistogram, IntervalLogIterator, LogEntry},
    },
};

use super::{
    DIGITS, LONGEST, StallInterval, StallKind,
    clock::millis,
    write::{CELL, ZERO},
};
use crate::recording::{RecordingError, table};

/// What a log holds.
#[derive(Debug, Default)]
pub(in crate::recording) struct Log {
    /// When it began, since the epoch; none in version 1.
    pub(in crate::recording) start: Option<Duration>,
    /// Where each cell has its own 0; none in version 1.
    pub(in crate::recording) zeros: BTreeMap<u32, Duration>,
    /// The intervals, each on its cell's own clock.
    pub(in crate::recording) intervals: Vec<StallInterval>,
    /// The line that has no end: what a crash in the middle of a write leaves.
    pub(in crate::recording) torn_line: Option<u64>,
}

/// What the log file holds.
pub(in crate::recording) fn parse(path: &Path, bytes: &[u8]) -> Result<Log, RecordingError> {
    let whole = table::whole_lines(bytes);
    let mut log = Log {
        torn_line: (whole < bytes.len()).then(|| table::line_ends(bytes) + 1),
        ..Log::default()
    };
    for (line, number) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').zip(1..) {
        log.take(line).map_err(|problem| RecordingError::BadInterval {
            path: path.to_owned(),
            line: number,
            problem,
        })?;
    }
    Ok(log)
}

impl Log {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix(CELL.as_bytes()) {
            let (cell, zero) = cell_zero(rest).ok_or("it does not say where a cell's 0 is")?;
            self.zeros.insert(cell, zero);
            return Ok(());
        }
        match IntervalLogIterator::new(line).next() {
            Some(Ok(LogEntry::StartTime(start))) => self.start = Some(millis(start)),
            Some(Ok(LogEntry::Interval(entry))) => self.intervals.push(self.decode(&entry)?),
            Some(Ok(LogEntry::BaseTime(_))) | None => {}
            Some(Err(_)) => return Err("neither a comment nor an interval".to_owned()),
        }
        Ok(())
    }

    fn decode(&self, entry: &IntervalLogHistogram<'_>) -> Result<StallInterval, String> {
        let tag = entry.tag().map_or("", |tag| tag.as_str());
        let (cell, vcpu, kind) =
            parse_tag(tag).ok_or_else(|| format!("tag `{tag}` is not of the form `cell3/vcpu0/stall`"))?;
        let packed = STANDARD
            .decode(entry.encoded_histogram())
            .map_err(|source| format!("the histogram is not base64: {source}"))?;
        let histogram = unpack(&packed).map_err(|problem| format!("the histogram can't be unpacked: {problem}"))?;
        let zero = match self.start {
            None => Duration::ZERO,
            Some(_) => *self
                .zeros
                .get(&cell)
                .ok_or_else(|| format!("no line before it says where cell {cell} has its 0"))?,
        };
        let start = entry.start_timestamp();
        let end = start
            .checked_add(entry.duration())
            .ok_or("the interval ends after the end of time")?;
        Ok(StallInterval {
            cell,
            vcpu,
            kind,
            interval: start.saturating_sub(zero)..end.saturating_sub(zero),
            histogram,
        })
    }
}

/// `3: t_s 0 is at 12.345]`
fn cell_zero(rest: &[u8]) -> Option<(u32, Duration)> {
    let (cell, zero) = str::from_utf8(rest)
        .ok()?
        .trim_end()
        .strip_suffix(']')?
        .split_once(ZERO)?;
    let (seconds, fraction) = zero.split_once('.')?;
    let millis: u64 = fraction.parse().ok().filter(|_| fraction.len() == 3)?;
    let zero = Duration::from_secs(seconds.parse().ok()?).checked_add(Duration::from_millis(millis))?;
    Some((cell.parse().ok()?, zero))
}

fn parse_tag(tag: &str) -> Option<(u32, u32, StallKind)> {
    let (cell, rest) = tag.strip_prefix("cell")?.split_once('/')?;
    let (vcpu, kind) = rest.strip_prefix("vcpu")?.split_once('/')?;
    let kind = StallKind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some((cell.parse().ok()?, vcpu.parse().ok()?, kind))
}

/// Bytes of a compressed histogram before the deflated ones: a cookie and their length.
const OUTER_HEADER: usize = 8;
/// The cookie of a compressed histogram in encoding V2.
const COMPRESSED: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();
/// Bytes of an uncompressed histogram before its counts: cookie, length, offset, digits, lowest and highest value, ratio.
const HEADER: usize = 40;
/// A count takes up to 9 bytes, and no histogram of ours has more than 2048 x 33 of them: no more is ever unpacked.
const MOST_BYTES: usize = HEADER + 9 * 2048 * 33;

/// A histogram of ours: other bounds or digits are not, and could ask for any amount of memory.
fn unpack(packed: &[u8]) -> Result<Histogram<u64>, String> {
    let deflated = packed
        .strip_prefix(&COMPRESSED)
        .and_then(|rest| rest.get(OUTER_HEADER - COMPRESSED.len()..))
        .ok_or("it is no compressed histogram of encoding V2")?;
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|source| source.to_string())?;
    if plain.len() > MOST_BYTES {
        return Err(format!("it has more than {MOST_BYTES} bytes"));
    }
    let number = |from: usize, bytes: usize| {
        let field = plain.get(from..from + bytes)?;
        Some(field.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (length, digits, highest) = (number(4, 4), number(12, 4), number(24, 8));
    if digits != Some(u64::from(DIGITS)) || highest != Some(LONGEST.as_nanos() as u64) {
        return Err(format!(
            "its bounds are not {DIGITS} digits and {} ns",
            LONGEST.as_nanos()
        ));
    }
    if length != Some(plain.len().saturating_sub(HEADER) as u64) {
        return Err("its length is not what it says".to_owned());
    }
    // Nine such bytes are the count -2^63, which hdrhistogram 7.6 negates without a check.
    if plain[HEADER..].windows(9).any(|count| count == [0xff; 9]) {
        return Err("it has a count that is none".to_owned());
    }
    Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|source| source.to_string())
}
