//! `calc-dirty-rate`: counts what the vCPUs dirty for a while, on a thread of its own.
//!
//! The thread owns nothing but its measurement. It ends with the time it was given, or at once when [`DirtyRate`] is
//! dropped; at most it waits for a vCPU that sleeps, so whoever drops it first takes the vCPUs out of their sleep.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use dirtyrig_limiter::{rate::Harvest, units::Pages};

use super::{
    vm::LimitedVm,
    wire::{DirtyRateInfo, DirtyRateMode, DirtyRateStatus, Error, TimeUnit, VcpuDirtyRate},
};

/// The times that QEMU measures for, and so what a client may ask for.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_mins(1);

/// The last measurement, or the one that runs.
#[derive(Clone, Debug, Default)]
enum Measurement {
    #[default]
    Unstarted,
    Measuring(Asked),
    Measured(Asked, Vec<VcpuDirtyRate>),
    Failed(String),
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Seconds since 1970.
    start: u64,
    length: Duration,
}

/// What measures the dirty rate of a VM.
pub(super) struct DirtyRate {
    vm: Arc<dyn LimitedVm>,
    last: Arc<Mutex<Measurement>>,
    thread: Mutex<Option<Measuring>>,
}

/// The thread that measures. It ends early once `stop` is gone.
struct Measuring {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Measuring {
    fn end(self) {
        drop(self.stop);
        // It has left its result; a panic was reported where it happened, and there is nothing to add.
        let _ = self.thread.join();
    }
}

impl DirtyRate {
    pub(super) fn new(vm: Arc<dyn LimitedVm>) -> Self {
        Self {
            vm,
            last: Arc::default(),
            thread: Mutex::new(None),
        }
    }

    /// Begins a measurement and returns at once.
    pub(super) fn begin(&self, time: i64, unit: TimeUnit, mode: DirtyRateMode) -> Result<(), Error> {
        if mode != DirtyRateMode::DirtyRing {
            return Err(Error::generic(
                "only mode dirty-ring can be measured here, because a VM that has dirty rings has no other method: \
                 give mode dirty-ring (calc_dirty_rate -r)",
            ));
        }
        let length = length(time, unit)?;
        // The lock of the thread is taken first, here and nowhere else, so that two clients can't both begin.
        let mut thread = lock(&self.thread);
        if matches!(*lock(&self.last), Measurement::Measuring(_)) {
            return Err(Error::generic(
                "a dirty rate is being measured already: wait until it is done",
            ));
        }
        if let Some(ended) = thread.take() {
            ended.end();
        }
        let asked = Asked {
            start: unix_seconds(),
            length,
        };
        *lock(&self.last) = Measurement::Measuring(asked);
        let (vm, last, (stop, stopped)) = (Arc::clone(&self.vm), Arc::clone(&self.last), mpsc::channel());
        let work = move || {
            let result = match measure(&*vm, length, &stopped) {
                Ok(Some(rates)) => Measurement::Measured(asked, rates),
                Ok(None) => Measurement::Unstarted,
                Err(error) => Measurement::Failed(format!("the dirty rate can't be measured: {error:#}")),
            };
            *lock(&last) = result;
        };
        match thread::Builder::new().name("dirty-rate".into()).spawn(work) {
            Ok(begun) => *thread = Some(Measuring { stop, thread: begun }),
            Err(error) => {
                *lock(&self.last) = Measurement::Unstarted;
                return Err(Error::generic(format!("no thread can be started to measure: {error}")));
            }
        }
        Ok(())
    }

    /// How far it is, with times in `unit`.
    pub(super) fn query(&self, unit: TimeUnit) -> Result<DirtyRateInfo, Error> {
        let none = DirtyRateInfo {
            calc_time_unit: unit,
            ..DirtyRateInfo::default()
        };
        let of = |asked: Asked, status| DirtyRateInfo {
            status,
            mode: DirtyRateMode::DirtyRing,
            start_time: asked.start,
            calc_time: match unit {
                TimeUnit::Second => asked.length.as_secs(),
                TimeUnit::Millisecond => asked.length.as_millis() as u64,
            },
            ..none.clone()
        };
        match lock(&self.last).clone() {
            Measurement::Unstarted => Ok(none),
            Measurement::Measuring(asked) => Ok(of(asked, DirtyRateStatus::Measuring)),
            Measurement::Measured(asked, rates) => Ok(DirtyRateInfo {
                dirty_rate: Some(rates.iter().map(|rate| rate.dirty_rate).sum()),
                vcpu_dirty_rate: Some(rates),
                ..of(asked, DirtyRateStatus::Measured)
            }),
            Measurement::Failed(why) => Err(Error::generic(why)),
        }
    }
}

impl Drop for DirtyRate {
    fn drop(&mut self) {
        if let Some(measuring) = lock(&self.thread).take() {
            measuring.end();
        }
    }
}

/// What each vCPU dirties in `length`, in QEMU's whole MiB/s; none if it was told to stop.
fn measure(vm: &dyn LimitedVm, length: Duration, stopped: &Receiver<()>) -> anyhow::Result<Option<Vec<VcpuDirtyRate>>> {
    let before = vm.dirtied()?;
    let begin = Instant::now();
    if stopped.recv_timeout(length) != Err(RecvTimeoutError::Timeout) {
        return Ok(None);
    }
    let after = vm.dirtied()?;
    let over = begin.elapsed();
    let rates = vm
        .vcpus()
        .into_iter()
        .zip(before.iter().zip(&after))
        .map(|(vcpu, (before, after))| {
            let pages = Pages(after.0.saturating_sub(before.0));
            VcpuDirtyRate {
                id: vcpu.index as u64,
                dirty_rate: Harvest { pages, over }.whole().0,
            }
        });
    Ok(Some(rates.collect()))
}

fn length(time: i64, unit: TimeUnit) -> Result<Duration, Error> {
    let millis = match unit {
        TimeUnit::Second => time.saturating_mul(1000),
        TimeUnit::Millisecond => time,
    };
    u64::try_from(millis)
        .map(Duration::from_millis)
        .ok()
        .filter(|length| (SHORTEST..=LONGEST).contains(length))
        .ok_or_else(|| {
            let (low, high) = (SHORTEST.as_millis(), LONGEST.as_millis());
            Error::generic(format!(
                "a calculation time of {millis} ms is out of range: give {low} to {high} ms"
            ))
        })
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced as a whole: a panic elsewhere leaves none half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
