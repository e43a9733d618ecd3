//! What can be seen of a VMM's vCPU threads from outside: by the probes where they can be had, else by `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Duration,
};

use dirtyrig_probes::{Event, Options, Probes, StallCause, Target, VcpuCounters, monotonic_now};

use crate::engine::target::Stall;

/// What one thread has done. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Time in `KVM_RUN`; without the probes, time on a CPU. `None` of a thread that is gone.
    pub in_guest: Option<Duration>,
    /// What only the probes show.
    pub kernel: Option<Kernel>,
}

/// What the probes saw of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Pages pushed to its ring.
    pub pushed_pages: u64,
    /// Exits because the ring was full.
    pub ring_full_exits: u64,
    /// Returns of `KVM_RUN`.
    pub exits: u64,
    /// Time from ring-full exits to the next entry.
    pub stalled: Duration,
    /// The last such stall.
    pub last_stall: Duration,
}

/// Watches the vCPU threads of one process.
pub struct Watch {
    pid: u32,
    /// Of each vCPU, by index.
    threads: BTreeMap<usize, u32>,
    probes: Option<Probes>,
    /// Where the clock of stalls has its 0.
    epoch: Duration,
    stalls: Vec<Stall>,
    last_stall: HashMap<u32, Duration>,
}

impl Watch {
    /// Watches `threads` of `pid`, and says why it has to do without probes if it does. Stalls are on a clock that
    /// starts now.
    pub fn new(pid: u32, threads: BTreeMap<usize, u32>) -> (Self, Option<String>) {
        let (probes, without) = match Probes::attach(&Options::new(Target::Pid(pid))) {
            Ok(probes) => (Some(probes), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let watch = Self {
            pid,
            threads,
            probes,
            epoch: monotonic_now(),
            stalls: Vec::new(),
            last_stall: HashMap::new(),
        };
        (watch, without)
    }

    /// Time since it began to watch.
    pub fn now(&self) -> Duration {
        monotonic_now().saturating_sub(self.epoch)
    }

    /// Whether it sees stalls after full rings.
    pub fn sees_stalls(&self) -> bool {
        self.probes.is_some()
    }

    /// The index of each thread's vCPU.
    pub fn indices(&self) -> HashMap<u32, usize> {
        self.threads.iter().map(|(&index, &thread)| (thread, index)).collect()
    }

    /// What each vCPU has done, by index.
    pub fn look(&mut self) -> Result<BTreeMap<usize, Seen>, dirtyrig_probes::Error> {
        self.drain()?;
        let Some(probes) = &mut self.probes else {
            let time = |(&index, &thread): (&usize, &u32)| {
                let (in_guest, kernel) = (cpu_time(self.pid, thread), None);
                (index, Seen { in_guest, kernel })
            };
            return Ok(self.threads.iter().map(time).collect());
        };
        let counters = probes.vcpus()?;
        let of = |thread: &u32| counters.iter().find(|vcpu| vcpu.thread == *thread);
        Ok(self
            .threads
            .iter()
            .map(|(&index, thread)| {
                let last_stall = self.last_stall.get(thread).copied().unwrap_or_default();
                // One that the probes have not seen has done nothing yet.
                let seen = of(thread).map_or_else(
                    || Seen {
                        in_guest: Some(Duration::ZERO),
                        kernel: Some(Kernel::default()),
                    },
                    |counters| seen(counters, last_stall),
                );
                (index, seen)
            })
            .collect())
    }

    /// The stalls after ring-full exits that ended since the last call.
    pub fn take_stalls(&mut self) -> Vec<Stall> {
        std::mem::take(&mut self.stalls)
    }

    fn drain(&mut self) -> Result<(), dirtyrig_probes::Error> {
        let Some(probes) = &mut self.probes else {
            return Ok(());
        };
        let (threads, epoch) = (&self.threads, self.epoch);
        let (stalls, last_stall) = (&mut self.stalls, &mut self.last_stall);
        probes.drain(|event| {
            let Event::Stall(stall) = event else { return };
            let vcpu = threads
                .iter()
                .find(|(_, thread)| **thread == stall.thread)
                .map(|(&index, _)| index);
            if let (StallCause::RingFull, Some(vcpu)) = (stall.cause, vcpu) {
                last_stall.insert(stall.thread, stall.length());
                stalls.push(Stall {
                    vcpu,
                    at: stall.exit_at.saturating_sub(epoch),
                    length: stall.length(),
                    // QEMU tells nobody what it asked for.
                    asked: Duration::ZERO,
                    slept: stall.length(),
                });
            }
        })?;
        Ok(())
    }
}

/// The counts of a thread.
fn seen(counters: &VcpuCounters, last_stall: Duration) -> Seen {
    Seen {
        in_guest: Some(counters.in_run),
        kernel: Some(Kernel {
            pushed_pages: counters.pushed_pages,
            ring_full_exits: counters.ring_full_exits,
            exits: counters.userspace_exits,
            stalled: counters.ring_full.total,
            last_stall,
        }),
    }
}

/// Time that a thread was on a CPU; `None` of one that is gone.
fn cpu_time(pid: u32, thread: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
