//! `stalls.hlog`: the pauses as histograms in `HdrHistogram`'s own log format, which its other tools read.
//!
//! One line holds the pauses of one vCPU in one interval: a tag, the interval's start and length in seconds, its
//! largest value in milliseconds, and the histogram (V2, compressed, base64) of values in **nanoseconds**. These are the units
//! that `HdrHistogram`'s own writers use. The tag is `cell3/vcpu0/stall`. Starts are seconds since `StartTime` and never
//! go back ([`clock`]); before the first line of a cell a comment says where on that clock the cell's own 0 is.
//!
//! Version 1 had neither `StartTime` nor those comments: its starts are on the clock of each cell, and its largest
//! values are nanoseconds. It is read as well.

mod clock;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::{fmt, ops::Range, time::Duration};

use hdrhistogram::Histogram;

pub(super) use clock::{Clock, Place};
pub(super) use read::{Log, parse};
pub(super) use write::{encode, header};

use crate::model::{KernelStall, Stall};

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
type Value = (usize, StallKind, Duration);

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

/// What the log keeps of the limiter's pauses in one interval of a cell. One that was not asked for has no lateness.
pub(super) fn of_limiter(cell: u32, interval: &Range<Duration>, stalls: &[Stall]) -> Vec<StallInterval> {
    let values = stalls.iter().flat_map(|stall| {
        let late = stall.slept.checked_sub(stall.asked).filter(|_| !stall.asked.is_zero());
        let cut = stall.asked.checked_sub(stall.slept).filter(|cut| !cut.is_zero());
        [
            Some((stall.vcpu, StallKind::Stall, stall.length)),
            late.map(|late| (stall.vcpu, StallKind::Lateness, late)),
            cut.map(|cut| (stall.vcpu, StallKind::CutShort, cut)),
        ]
    });
    let values: Vec<Value> = values.flatten().collect();
    write::histograms(cell, interval, &values)
}

/// What the log keeps of the pauses that the kernel saw in one interval of a cell.
pub(super) fn of_kernel(cell: u32, interval: &Range<Duration>, stalls: &[KernelStall]) -> Vec<StallInterval> {
    let values = stalls.iter().flat_map(|stall| {
        let overhead = stall.overhead();
        [
            Some((stall.vcpu, StallKind::KernelStall, stall.length)),
            overhead.map(|overhead| (stall.vcpu, StallKind::Overhead, overhead)),
        ]
    });
    let values: Vec<Value> = values.flatten().collect();
    write::histograms(cell, interval, &values)
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
    /// The interval on the cell's clock, to the millisecond: 0 is where `t_s` of its samples is 0.
    pub interval: Range<Duration>,
    /// The values in nanoseconds.
    pub histogram: Histogram<u64>,
}
