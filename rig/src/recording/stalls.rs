//! `stalls.hlog`: the pauses as histograms in `HdrHistogram`'s own log format, which its other tools read.
//!
//! One line holds the pauses of one vCPU in one interval: a tag, the interval's start and length in seconds, its
//! largest value, and the histogram (V2, compressed, base64). Values, the largest one too, are **nanoseconds**. The
//! tag is `cell3/vcpu0/stall`; interval starts are on the cell's own clock (`t_s` of the samples), so that the lines of
//! a tag are in order while those of different cells start anew.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer, V2DeflateSerializer,
        interval_log::{
            IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, LogIteratorError, Tag,
        },
    },
};

use super::{RecordingError, table};
use crate::engine::{probed::KernelStall, target::Stall};

/// Says what the file is, in the words that `HdrHistogram`'s own writers use, and the unit.
pub(super) const HEADER: &str = "#[Histogram log format version 1.3]\n\
    #[Values in nanoseconds; interval starts in seconds on the clock of the tag's cell]\n\
    \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// The longest value kept, an hour: QEMU's longest sleep is 22 s.
const LONGEST: Duration = Duration::from_hours(1);

/// Three digits: a percentile is within 0.1 % of the truth.
const DIGITS: u8 = 3;

/// What a histogram holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StallKind {
    /// Every pause: exit to next entry.
    Stall,
    /// Slept minus asked, of the pauses that slept at least what was asked.
    Lateness,
    /// Asked minus slept, of the pauses whose sleep was cut short.
    CutShort,
    /// Every pause that the kernel saw: return of `KVM_RUN` to next entry.
    KernelStall,
    /// The part of such a pause that nobody asked for.
    Overhead,
}

/// One value of the log: of which vCPU, of which kind.
pub(super) type Value = (usize, StallKind, Duration);

impl StallKind {
    const ALL: [Self; 5] = [
        Self::Stall,
        Self::Lateness,
        Self::CutShort,
        Self::KernelStall,
        Self::Overhead,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::Lateness => "lateness",
            Self::CutShort => "cut-short",
            Self::KernelStall => "kernel-stall",
            Self::Overhead => "overhead",
        }
    }
}

/// What the log keeps of the limiter's pauses. One that was not asked for has no lateness.
pub(super) fn of_limiter(stalls: &[Stall]) -> Vec<Value> {
    let values = stalls.iter().flat_map(|stall| {
        let late = stall.slept.checked_sub(stall.asked).filter(|_| !stall.asked.is_zero());
        let cut = stall.asked.checked_sub(stall.slept).filter(|cut| !cut.is_zero());
        [
            Some((stall.vcpu, StallKind::Stall, stall.length)),
            late.map(|late| (stall.vcpu, StallKind::Lateness, late)),
            cut.map(|cut| (stall.vcpu, StallKind::CutShort, cut)),
        ]
    });
    values.flatten().collect()
}

/// What the log keeps of the pauses that the kernel saw.
pub(super) fn of_kernel(stalls: &[KernelStall]) -> Vec<Value> {
    let values = stalls.iter().flat_map(|stall| {
        let overhead = stall.overhead();
        [
            Some((stall.vcpu, StallKind::KernelStall, stall.length)),
            overhead.map(|overhead| (stall.vcpu, StallKind::Overhead, overhead)),
        ]
    });
    values.flatten().collect()
}

impl fmt::Display for StallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct StallInterval {
    /// Which cell of the recording.
    pub cell: u32,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// What the histogram holds.
    pub kind: StallKind,
    /// The interval on the cell's clock, to the millisecond.
    pub interval: Range<Duration>,
    /// The values in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// The lines for the values of one interval of a cell: one for each vCPU and kind that has any. Also how many.
pub(super) fn encode(cell: u32, interval: &Range<Duration>, values: &[Value]) -> (Vec<u8>, u64) {
    let mut histograms = BTreeMap::new();
    for &(vcpu, kind, value) in values {
        let histogram = histograms.entry((vcpu, kind)).or_insert_with(empty);
        histogram.saturating_record(value.as_nanos().try_into().unwrap_or(u64::MAX));
    }

    let mut lines = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .begin_log_with(&mut lines, &mut serializer)
        .expect("memory takes every write");
    for ((vcpu, kind), histogram) in &histograms {
        let tag = format!("cell{cell}/vcpu{vcpu}/{kind}");
        let tag = Tag::new(&tag).expect("the tag has neither comma nor space");
        let length = interval.end.saturating_sub(interval.start);
        log.write_histogram(histogram, interval.start, length, Some(tag))
            .expect("a histogram within its own bounds serialises to memory");
    }
    (lines, histograms.len() as u64)
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS).expect("the bounds are in order")
}

/// What the log file holds: its whole lines, and which line is torn.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<StallInterval>, Option<u64>), RecordingError> {
    let whole = table::whole_lines(bytes);
    let line_at = |offset: usize| table::line_ends(&bytes[..offset]) + 1;
    let base = bytes.as_ptr() as usize;
    let mut intervals = Vec::new();
    for entry in IntervalLogIterator::new(&bytes[..whole]) {
        match entry {
            Ok(LogEntry::Interval(entry)) => intervals.push(decode(&entry).map_err(|problem| {
                let offset = entry.encoded_histogram().as_ptr() as usize - base;
                RecordingError::BadInterval {
                    path: path.to_owned(),
                    line: line_at(offset),
                    problem,
                }
            })?),
            Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_)) => {}
            Err(LogIteratorError::ParseError { offset }) => {
                return Err(RecordingError::BadInterval {
                    path: path.to_owned(),
                    line: line_at(offset),
                    problem: "neither a comment nor an interval".to_owned(),
                });
            }
        }
    }
    Ok((intervals, (whole < bytes.len()).then(|| line_at(whole))))
}

fn decode(entry: &IntervalLogHistogram<'_>) -> Result<StallInterval, String> {
    let tag = entry.tag().map_or("", |tag| tag.as_str());
    let (cell, vcpu, kind) =
        parse_tag(tag).ok_or_else(|| format!("tag `{tag}` is not of the form `cell3/vcpu0/stall`"))?;
    let packed = STANDARD
        .decode(entry.encoded_histogram())
        .map_err(|source| format!("the histogram is not base64: {source}"))?;
    let histogram = Deserializer::new()
        .deserialize(&mut packed.as_slice())
        .map_err(|source| format!("the histogram can't be unpacked: {source}"))?;
    let start = entry.start_timestamp();
    Ok(StallInterval {
        cell,
        vcpu,
        kind,
        interval: start..start + entry.duration(),
        histogram,
    })
}

fn parse_tag(tag: &str) -> Option<(u32, u32, StallKind)> {
    let (cell, rest) = tag.strip_prefix("cell")?.split_once('/')?;
    let (vcpu, kind) = rest.strip_prefix("vcpu")?.split_once('/')?;
    let kind = StallKind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some((cell.parse().ok()?, vcpu.parse().ok()?, kind))
}

/// The cell that a line of the log belongs to; `None` for the lines of the header.
pub(super) fn cell_of(line: &[u8]) -> Option<u32> {
    let tag = line.strip_prefix(b"Tag=")?.split(|&byte| byte == b',').next()?;
    parse_tag(str::from_utf8(tag).ok()?).map(|(cell, ..)| cell)
}
