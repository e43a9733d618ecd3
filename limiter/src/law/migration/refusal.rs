//! Why a promise can't be kept, and what could be.

use std::{fmt, time::Duration};

use super::{Task, bounds::Start, held};
use crate::units::MibPerSec;

/// The least of each that would do, the others being as they were asked for; `None` where none would.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refusal {
    /// The total time, in whole milliseconds.
    pub within: Option<Duration>,
    /// The bandwidth, in hundredths of a MiB/s.
    pub bandwidth: Option<MibPerSec>,
    /// The blackout, in whole milliseconds.
    pub downtime: Option<Duration>,
}

/// No link is faster than this many MiB/s, nor any blackout or migration longer than this many milliseconds.
const FASTEST_MIB_S: u64 = 1 << 24;
const LONGEST_MS: u64 = 30 * 24 * 3_600_000;

pub(super) fn of(task: &Task) -> Refusal {
    let keeps = |task: &Task| {
        let total = held::total(task, held::least_quota(task), Start::AtOnce);
        total.is_some_and(|total| total <= task.within.as_secs_f64())
    };
    let within = least(LONGEST_MS, |ms| {
        keeps(&Task {
            within: Duration::from_millis(ms),
            ..task.clone()
        })
    });
    let bandwidth = least(FASTEST_MIB_S * 100, |hundredths| {
        keeps(&Task {
            bandwidth: MibPerSec(hundredths as f64 / 100.0),
            ..task.clone()
        })
    });
    let downtime = least(LONGEST_MS, |ms| {
        keeps(&Task {
            downtime: Duration::from_millis(ms),
            ..task.clone()
        })
    });
    Refusal {
        within: within.map(Duration::from_millis),
        bandwidth: bandwidth.map(|hundredths| MibPerSec(hundredths as f64 / 100.0)),
        downtime: downtime.map(Duration::from_millis),
    }
}

/// The least number up to `most` that does, given that every larger one does too.
fn least(most: u64, does: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut below, mut above) = (0, most);
    if !does(above) {
        return None;
    }
    while above - below > 1 {
        let middle = u64::midpoint(below, above);
        *(if does(middle) { &mut above } else { &mut below }) = middle;
    }
    Some(above)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |name: &str, time: Option<Duration>| {
            time.map(|time| format!("{name} of at least {:.3} s", time.as_secs_f64()))
        };
        let could: Vec<String> = [
            seconds("a total time", self.within),
            self.bandwidth
                .map(|rate| format!("a bandwidth of at least {:.2} MiB/s", rate.0)),
            self.downtime
                .map(|time| format!("a downtime of at least {} ms", time.as_millis())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if could.is_empty() {
            f.write_str("no total time, bandwidth or downtime alone would do")
        } else {
            f.write_str(&could.join(", or "))
        }
    }
}
