//! What the guest itself says of its migration: its counters, in the memories of both sides.
//!
//! A counter in the destination's memory is a copy until the guest runs there: it goes beyond the source's last value only
//! then. So the blackout lasts from the last change at the source to the first value beyond it at the destination.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dirtyrig_limiter::units::{MibPerSec, Pages};
use nix::sys::prctl;

use crate::qemu::memory::SharedMemory;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_micros(400);

/// What was seen at one moment: accesses that all vCPUs have made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Since the sampler began.
    pub at: Duration,
    /// At the source.
    pub source: u64,
    /// At the destination.
    pub destination: u64,
}

/// Looks at both memories on a thread of its own. It also changes, all the time, the value that the guest's writes leave, so
/// that a page that was sent too early differs.
#[derive(Debug)]
pub struct Sampler {
    begun: Instant,
    /// Relaxed: a lone flag.
    stop: Arc<AtomicBool>,
    marker: Marker,
    thread: JoinHandle<Vec<Look>>,
}

impl Sampler {
    /// Begins to look.
    pub fn start(source: Arc<SharedMemory>, destination: Arc<SharedMemory>, vcpus: usize) -> Self {
        let begun = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let marker = Marker {
            memory: Arc::clone(&source),
            vcpus,
            value: Arc::default(),
        };
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            let marker = marker.clone();
            move || {
                // A failure leaves the kernel's default of 50 us.
                let _ = prctl::set_timerslack(1);
                let mut looks = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    looks.push(Look {
                        at: begun.elapsed(),
                        source: accesses(&source, vcpus),
                        destination: accesses(&destination, vcpus),
                    });
                    marker.mark();
                    thread::sleep(LOOK_EVERY);
                }
                looks
            }
        });
        Self {
            begun,
            stop,
            marker,
            thread,
        }
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Has the guest's writes leave a new value from now on.
    pub fn mark(&self) {
        self.marker.mark();
    }

    /// Ends it; what it saw, oldest first.
    pub fn finish(self) -> Vec<Look> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Who tells the guest what its writes leave: a value that only grows.
#[derive(Clone, Debug)]
struct Marker {
    memory: Arc<SharedMemory>,
    vcpus: usize,
    /// Relaxed: the value alone counts.
    value: Arc<AtomicU64>,
}

impl Marker {
    fn mark(&self) {
        let value = self.value.fetch_add(1, Ordering::Relaxed);
        (0..self.vcpus).for_each(|vcpu| self.memory.set_iteration(vcpu, value));
    }
}

fn accesses(memory: &SharedMemory, vcpus: usize) -> u64 {
    (0..vcpus)
        .map(|vcpu| memory.truth(vcpu))
        .map(|truth| truth.written + truth.read)
        .sum()
}

/// What the counters say of a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Truth {
    /// From the last access at the source to the first at the destination; `None` if there was none.
    pub blackout: Option<Duration>,
    /// By how much the looks may be wrong about that.
    pub blackout_error: Duration,
    /// From the start until the guest ran at the destination.
    pub total: Option<Duration>,
    /// The longest time without an access at the source, from the start to the last.
    pub longest_stall: Duration,
    /// Accesses from the start to the end of the looks, at both sides.
    pub accesses: Pages,
    /// From the start to the end of the looks.
    pub span: Duration,
}

/// Reads the looks of a migration that was started at `from`.
pub fn judge(looks: &[Look], from: Duration) -> Truth {
    let Some(last) = looks.last() else {
        return Truth::default();
    };
    let changed = |index: &usize| looks[*index].source != looks[*index - 1].source;
    let Some(end) = (1..looks.len()).rev().find(changed) else {
        return Truth::default();
    };
    let left_at = looks[end];
    let arrived = (end..looks.len()).find(|&index| looks[index].destination > left_at.source);
    let gap = |index: usize| looks[index].at.saturating_sub(looks[index.saturating_sub(1)].at);
    let mut since = from;
    let mut longest_stall = Duration::ZERO;
    for index in (1..=end).filter(changed) {
        if looks[index].at > from {
            longest_stall = longest_stall.max(looks[index].at.saturating_sub(since));
            since = looks[index].at;
        }
    }
    let began = looks.iter().find(|look| look.at >= from).copied().unwrap_or_default();
    let total = last.source.max(last.destination);
    Truth {
        blackout: arrived.map(|index| looks[index].at.saturating_sub(left_at.at)),
        blackout_error: gap(end) + arrived.map_or(Duration::ZERO, gap),
        total: arrived.map(|index| looks[index].at.saturating_sub(from)),
        longest_stall,
        accesses: Pages(total.saturating_sub(began.source)),
        span: last.at.saturating_sub(from),
    }
}

/// The guest's rate of accesses between two moments.
pub fn rate(looks: &[Look], from: Duration, to: Duration) -> Option<MibPerSec> {
    let within: Vec<&Look> = looks.iter().filter(|look| look.at >= from && look.at <= to).collect();
    let (first, last) = (within.first()?, within.last()?);
    Pages(last.source.saturating_sub(first.source)).per(last.at.saturating_sub(first.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(rows: &[(u64, u64, u64)]) -> Vec<Look> {
        let look = |&(millis, source, destination)| Look {
            at: Duration::from_millis(millis),
            source,
            destination,
        };
        rows.iter().map(look).collect()
    }

    #[test]
    fn a_copy_is_not_yet_a_guest_that_runs() {
        let looks = looks(&[
            (0, 10, 0),
            (1, 20, 0),
            (2, 20, 15),
            (3, 20, 20),
            (5, 30, 20),
            (6, 40, 20),
            (9, 40, 40),
            (10, 40, 41),
            (12, 40, 50),
        ]);
        let truth = judge(&looks, Duration::from_millis(1));
        assert_eq!(truth.blackout, Some(Duration::from_millis(4)));
        assert_eq!(truth.blackout_error, Duration::from_millis(2));
        assert_eq!(truth.total, Some(Duration::from_millis(9)));
        assert_eq!(truth.longest_stall, Duration::from_millis(4));
        assert_eq!((truth.accesses, truth.span), (Pages(30), Duration::from_millis(11)));
    }

    #[test]
    fn a_guest_that_stays_has_no_blackout() {
        let stays = looks(&[(0, 1, 0), (1, 2, 0), (2, 3, 2)]);
        assert_eq!(judge(&stays, Duration::ZERO).blackout, None);
        assert_eq!(judge(&[], Duration::ZERO), Truth::default());
    }
}
