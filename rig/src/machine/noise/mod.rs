//! How much the machine itself disturbs: how late it wakes a sleeper, how much of its time is stolen,
//! and how much others use.
//!
//! [`Sampler`] sleeps over and over and measures each time by how much it overslept, as cyclictest does. Each sleep is
//! relative and measured by itself, so one long delay counts as one sample; the longest is reported beside the
//! percentiles for that reason.

pub mod disturbance;
mod proc_stat;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use proc_stat::ProcStat;

/// How closely a [`Sampler`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Sleeps of 1 ms: many samples soon, while nothing is measured that they could disturb. Where a wake-up costs
    /// 20 us, as in a guest of a guest, that takes 2 % of a CPU.
    Dense,
    /// Sleeps of 10 ms: a tenth of that, to run beside a guest; a cell of 10 s has its 99th percentile from 1000.
    Sparse,
}

impl Pace {
    fn sleep(self) -> Duration {
        Duration::from_millis(match self {
            Self::Dense => 1,
            Self::Sparse => 10,
        })
    }
}

/// Length of a baseline: a few hundred sleeps, so that the 99th percentile rests on more than one.
const BASELINE: Duration = Duration::from_millis(400);

/// Lateness beyond this is recorded as this.
const MOST_NS: u64 = 60_000_000_000;

/// What the machine did to a thread that only wanted to sleep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseReport {
    /// Length of the measurement.
    pub span_s: f64,
    /// Sleeps measured.
    pub samples: u64,
    /// Oversleep, median. The kernel's timer slack (50 us unless changed) is a part of it.
    pub timer_late_p50_us: f64,
    /// Oversleep, 99th percentile.
    pub timer_late_p99_us: f64,
    /// Oversleep, longest.
    pub timer_late_max_us: f64,
    /// Share of all CPUs' time that the hypervisor gave to others. Counted, like the rest, in ticks of 10 ms: over
    /// 400 ms on two CPUs one tick is 1.25 %. `None` where `/proc/stat` does not say.
    pub steal_pct: Option<f64>,
    /// The same of the CPU that was worst off.
    pub steal_worst_cpu_pct: Option<f64>,
    /// CPUs' worth of time used by anything but this process and its children.
    pub others_cpus: Option<f64>,
    /// CPUs' worth of time that nobody used.
    pub idle_cpus: Option<f64>,
}

/// Measures the machine's noise in a thread of its own, from [`Sampler::start`] to [`Sampler::finish`].
///
/// The thread owns its histogram, is told by nobody but this sampler, and ends within one sleep of being told.
/// Dropping the sampler ends it too.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    before: Option<ProcStat>,
    thread: Option<JoinHandle<Histogram<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Sampler {
    /// Begins to measure.
    pub fn start(pace: Pace) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("noise".to_owned())
            .spawn(move || oversleeps(pace.sleep(), &told))?;
        Ok(Self {
            started: Instant::now(),
            before: ProcStat::read(),
            thread: Some(thread),
            stop,
        })
    }

    /// Ends the thread and reports.
    pub fn finish(mut self) -> NoiseReport {
        let lateness = self
            .end()
            .expect("only finish and drop end the thread, and finish takes the sampler");
        let shares = ProcStat::read()
            .zip(self.before.take())
            .and_then(|(after, before)| after.since(&before));
        let quantile_us = |quantile| lateness.value_at_quantile(quantile) as f64 / 1e3;
        NoiseReport {
            span_s: self.started.elapsed().as_secs_f64(),
            samples: lateness.len(),
            timer_late_p50_us: quantile_us(0.5),
            timer_late_p99_us: quantile_us(0.99),
            timer_late_max_us: lateness.max() as f64 / 1e3,
            steal_pct: shares.map(|shares| shares.steal_pct),
            steal_worst_cpu_pct: shares.map(|shares| shares.steal_worst_cpu_pct),
            others_cpus: shares.map(|shares| shares.others_cpus),
            idle_cpus: shares.map(|shares| shares.idle_cpus),
        }
    }

    fn end(&mut self) -> Option<Histogram<u64>> {
        // Relaxed: the flag carries no data. What the thread measured comes through the join.
        self.stop.store(true, Ordering::Relaxed);
        Some(
            self.thread
                .take()?
                .join()
                .expect("the noise thread has nothing to panic about"),
        )
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// Measures the machine as it is now, for less than half a second.
pub fn baseline() -> io::Result<NoiseReport> {
    let sampler = Sampler::start(Pace::Dense)?;
    thread::sleep(BASELINE);
    Ok(sampler.finish())
}

/// Sleeps and measures until told to stop, at least once.
fn oversleeps(sleep: Duration, stop: &AtomicBool) -> Histogram<u64> {
    // The full range from the start: growing it would allocate in the middle of a measurement.
    let mut lateness =
        Histogram::new_with_bounds(1, MOST_NS, 3).expect("1 ns to 60 s at three digits is a valid range");
    loop {
        let asleep = Instant::now();
        thread::sleep(sleep);
        let late = asleep.elapsed().saturating_sub(sleep);
        lateness.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(MOST_NS));
        // Relaxed: pairs with the store in `Sampler::end`; seeing it one sleep later is soon enough.
        if stop.load(Ordering::Relaxed) {
            return lateness;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_in_order_whatever_the_machine_does() {
        let report = Sampler::start(Pace::Dense).unwrap().finish();
        assert!(report.samples >= 1);
        assert!(report.span_s >= Pace::Dense.sleep().as_secs_f64());
        assert!(report.timer_late_p50_us <= report.timer_late_p99_us);
        // The quantile is the upper end of a bucket three digits wide.
        assert!(report.timer_late_p99_us <= report.timer_late_max_us * 1.001);
    }

    #[test]
    fn a_sampler_that_is_dropped_ends_its_thread() {
        let sampler = Sampler::start(Pace::Dense).unwrap();
        let told = Arc::clone(&sampler.stop);
        drop(sampler);
        // The thread held the other one until it ended.
        assert_eq!(Arc::strong_count(&told), 1);
    }
}
