//! Lines of the log.

use std::{collections::BTreeMap, fmt::Write, ops::Range, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};

use super::{Clock, DIGITS, LONGEST, Place, StallInterval, Value};

/// How the comment begins that says where a cell's own 0 is; its number, this, and seconds follow.
pub(super) const CELL: &str = "#[Cell ";
/// What stands between the number of a cell and its 0.
pub(super) const ZERO: &str = ": t_s 0 is at ";

/// The first lines: what the file is, in the words of `HdrHistogram`'s own writers, when it began, and the units.
pub(in crate::recording) fn header(clock: &Clock) -> Vec<u8> {
    let start = seconds(clock.start());
    format!(
        "#[Histogram log format version 1.3]\n\
         #[dirtyrig stalls version 2: values in nanoseconds, Interval_Max in milliseconds, times in seconds since StartTime]\n\
         #[StartTime: {start} (seconds since epoch)]\n\
         #[BaseTime: {start} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    )
    .into_bytes()
}

/// What one interval of a cell had: a histogram for each vCPU and kind that has any values.
pub(super) fn histograms(cell: u32, interval: &Range<Duration>, values: &[Value]) -> Vec<StallInterval> {
    let mut histograms = BTreeMap::new();
    for &(vcpu, kind, value) in values {
        let histogram = histograms.entry((vcpu, kind)).or_insert_with(empty);
        histogram.saturating_record(value.as_nanos().try_into().unwrap_or(u64::MAX));
    }
    let interval = |((vcpu, kind), histogram)| StallInterval {
        cell,
        vcpu: vcpu as u32,
        kind,
        interval: interval.clone(),
        histogram,
    };
    histograms.into_iter().map(interval).collect()
}

/// The lines for `intervals`, each where `clock` has it; a cell that it doesn't have yet goes to `place`.
pub(in crate::recording) fn encode(intervals: &[StallInterval], clock: &mut Clock, place: Place<'_>) -> Vec<u8> {
    let mut lines = String::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut packed = Vec::new();
    for line in intervals {
        let (placed, zero) = clock.place(line.cell, &line.interval, place);
        if let Some(zero) = zero {
            let _ = writeln!(lines, "{CELL}{}{ZERO}{}]", line.cell, seconds(zero));
        }
        packed.clear();
        serializer
            .serialize(&line.histogram, &mut packed)
            .expect("a histogram within its own bounds serialises to memory");
        let _ = writeln!(
            lines,
            "Tag=cell{}/vcpu{}/{},{},{},{:.3},{}",
            line.cell,
            line.vcpu,
            line.kind,
            seconds(placed.start),
            seconds(placed.end.saturating_sub(placed.start)),
            line.histogram.max() as f64 / 1e6,
            STANDARD.encode(&packed)
        );
    }
    lines.into_bytes()
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS).expect("the bounds are in order")
}

/// Seconds with their milliseconds.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}
