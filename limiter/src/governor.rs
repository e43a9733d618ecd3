//! The threads that measure and adjust while a limit is in force.
//!
//! They own nothing of a vCPU: they synchronise it (which kicks it), reap its ring under the lock of
//! [`Rings`](crate::rings::Rings), and leave its throttle in the table of limits. They end within the time of a wake-up
//! when [`Governor`] is dropped; a synchronisation that waits for a sleeper is ended by waking that sleeper first.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    control::Phase,
    law::{
        auto_converge::AutoConverge,
        periodic::{PeriodicLaw, Reading, Threads},
    },
    rate::Harvest,
    rings::Whose,
    shared::Shared,
    stop::Stop,
    units::{MibPerSec, Pages},
};

/// What the governor does with its readings.
pub(crate) enum Steering {
    /// Adjusts throttles.
    Periodic(Box<dyn PeriodicLaw>),
    /// Adjusts the share of time that every vCPU sleeps.
    AutoConverge(AutoConverge),
    /// Nothing: the limiter needs no readings, only those who ask for the current rate do.
    Nothing,
}

/// The measuring and adjusting threads; dropping it ends them.
pub(crate) struct Governor {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Governor {
    /// Starts to measure every `period` and to steer.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        steering: &Arc<Mutex<Steering>>,
        threads: Threads,
        period: Duration,
    ) -> Self {
        let stop = Arc::new(Stop::default());
        let latest = Arc::new(Mutex::new(Vec::new()));
        let split = threads == Threads::Split;
        let mut threads = Vec::new();
        {
            let (shared, stop, steering, latest) = (
                Arc::clone(shared),
                Arc::clone(&stop),
                Arc::clone(steering),
                Arc::clone(&latest),
            );
            threads.push(spawn("measure", move || {
                let how = measuring(&lock(&steering));
                let mut cpu = Duration::ZERO;
                while let Some(readings) = measure(&shared, how, period, &stop) {
                    lock(&latest).clone_from(&readings);
                    if !split {
                        adjust(&shared, &mut lock(&steering), &readings);
                    }
                    shared.add_helpers_cpu(&mut cpu);
                }
            }));
        }
        if split {
            let (shared, stop, steering) = (Arc::clone(shared), Arc::clone(&stop), Arc::clone(steering));
            threads.push(spawn("adjust", move || {
                let mut cpu = Duration::ZERO;
                while !stop.wait(period) {
                    let readings = lock(&latest).clone();
                    adjust(&shared, &mut lock(&steering), &readings);
                    shared.add_helpers_cpu(&mut cpu);
                }
            }));
        }
        Self {
            shared: Arc::clone(shared),
            stop,
            threads,
        }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.stop.stop();
        for vcpu in &self.shared.vcpus {
            vcpu.control.wake();
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .expect("the system has room for one more thread")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a period ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measuring {
    /// As QEMU does: every vCPU is made to leave the guest, every ring is reaped, and the rate is what came in over the
    /// time taken *before* that, in whole MiB/s.
    Synchronising,
    /// The vCPUs are charged at each exit, so that their counts are fresh.
    Reading,
}

fn measuring(steering: &Steering) -> Measuring {
    match steering {
        Steering::Periodic(_) | Steering::AutoConverge(_) => Measuring::Synchronising,
        Steering::Nothing => Measuring::Reading,
    }
}

/// Measures for one `period`; `None` if it was told to stop meanwhile.
fn measure(shared: &Shared, how: Measuring, period: Duration, stop: &Stop) -> Option<Vec<Reading>> {
    let begin = shared.clock.now();
    let before = harvested(shared);
    if stop.wait(period) {
        return None;
    }
    let mut over = shared.clock.now().saturating_sub(begin);
    if how == Measuring::Synchronising {
        // QEMU sleeps for what is left of the period and takes the period itself for what it slept.
        over = period;
        for vcpu in &shared.vcpus {
            vcpu.control.sync();
        }
        if let Err(error) = shared.rings.reap(Whose::All) {
            shared.fail(error);
            return None;
        }
    }
    let after = harvested(shared);
    let quotas = shared.limits.quotas();
    let rows = before.iter().zip(&after).zip(quotas).enumerate();
    let readings = rows
        .filter(|(vcpu, _)| is_plugged(shared, *vcpu))
        .map(|(vcpu, ((before, after), quota))| {
            let harvest = Harvest {
                pages: Pages(after.0 - before.0),
                over,
            };
            Reading { vcpu, quota, harvest }
        })
        .collect::<Vec<_>>();
    let mut rates = vec![MibPerSec::default(); shared.vcpus.len()];
    for Reading { vcpu, harvest, .. } in &readings {
        rates[*vcpu] = match how {
            Measuring::Synchronising => harvest.whole().into(),
            Measuring::Reading => harvest.exact(),
        };
    }
    shared.limits.set_readings(&rates);
    (!stop.is_stopped()).then_some(readings)
}

fn adjust(shared: &Shared, steering: &mut Steering, readings: &[Reading]) {
    match steering {
        Steering::Periodic(law) => {
            law.adjust(readings);
            for reading in readings {
                shared.limits.set_throttle(reading.vcpu, law.throttle(reading.vcpu));
            }
        }
        Steering::AutoConverge(law) => {
            law.adjust(readings, shared.limits.vm_quota());
            let micros = crate::units::Micros(law.pause().as_micros() as u64);
            for vcpu in 0..shared.vcpus.len() {
                shared.limits.set_throttle(vcpu, micros);
            }
        }
        Steering::Nothing => {}
    }
}

fn harvested(shared: &Shared) -> Vec<Pages> {
    (0..shared.vcpus.len())
        .map(|vcpu| shared.rings.harvested(vcpu))
        .collect()
}

fn is_plugged(shared: &Shared, vcpu: usize) -> bool {
    !matches!(shared.vcpus[vcpu].control.phase(), Phase::Parked | Phase::Ended)
}
