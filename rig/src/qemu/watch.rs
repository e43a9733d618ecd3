//! What can be seen of a VMM's vCPU threads from outside: by the probes where they can be had, else by `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Duration,
};

use dirtyrig_probes::{Event, Options, Probes, StallCause, Target, VcpuCounters, monotonic_now};

use crate::model::Stall;

/// What one vCPU has done. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it has a thread that lives.
    pub plugged: bool,
    /// Time in `KVM_RUN`; without the probes, time on a CPU. `None` of a thread that is gone.
    pub in_guest: Option<Duration>,
    /// What only the probes show.
    pub kernel: Option<Kernel>,
}

/// What the probes saw of one vCPU.
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
    /// Of each vCPU, by index: one that is plugged again has another thread. The last is that of now.
    threads: BTreeMap<usize, Vec<u32>>,
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
            threads: threads
                .into_iter()
                .map(|(index, thread)| (index, vec![thread]))
                .collect(),
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
        let of_one =
            |(&index, threads): (&usize, &Vec<u32>)| threads.iter().map(move |&thread| (thread, index)).collect();
        self.threads.iter().flat_map(|one| -> Vec<_> { of_one(one) }).collect()
    }

    /// Keeps up with vCPUs that are plugged: `threads` are those of now.
    pub fn follow(&mut self, threads: &BTreeMap<usize, u32>) {
        for (&index, &thread) in threads {
            let known = self.threads.entry(index).or_default();
            if !known.contains(&thread) {
                known.push(thread);
            }
        }
    }

    /// What each vCPU has done, by index.
    pub fn look(&mut self) -> Result<BTreeMap<usize, Seen>, dirtyrig_probes::Error> {
        self.drain()?;
        let Some(probes) = &mut self.probes else {
            let time = |(&index, threads): (&usize, &Vec<u32>)| {
                let in_guest = threads.last().and_then(|&thread| cpu_time(self.pid, thread));
                let seen = Seen {
                    plugged: in_guest.is_some(),
                    in_guest,
                    kernel: None,
                };
                (index, seen)
            };
            return Ok(self.threads.iter().map(time).collect());
        };
        let counters = probes.vcpus()?;
        let of = |thread: &u32| {
            let last_stall = self.last_stall.get(thread).copied().unwrap_or_default();
            let counters = counters.iter().find(|vcpu| vcpu.thread == *thread);
            // One that the probes have not seen has done nothing yet.
            counters.map_or(NOTHING_YET, |counters| seen(counters, last_stall))
        };
        let all = |(&index, threads): (&usize, &Vec<u32>)| {
            (index, threads.iter().map(of).reduce(then).unwrap_or(NOTHING_YET))
        };
        Ok(self.threads.iter().map(all).collect())
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
                .find(|(_, threads)| threads.contains(&stall.thread))
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

const NOTHING_YET: Seen = Seen {
    plugged: true,
    in_guest: Some(Duration::ZERO),
    kernel: Some(Kernel {
        pushed_pages: 0,
        ring_full_exits: 0,
        exits: 0,
        stalled: Duration::ZERO,
        last_stall: Duration::ZERO,
    }),
};

/// What a vCPU has done that had one thread and then another.
fn then(earlier: Seen, later: Seen) -> Seen {
    let kernel = |(earlier, later): (Kernel, Kernel)| Kernel {
        pushed_pages: earlier.pushed_pages + later.pushed_pages,
        ring_full_exits: earlier.ring_full_exits + later.ring_full_exits,
        exits: earlier.exits + later.exits,
        stalled: earlier.stalled + later.stalled,
        last_stall: later.last_stall,
    };
    Seen {
        plugged: later.plugged,
        in_guest: earlier
            .in_guest
            .zip(later.in_guest)
            .map(|(earlier, later)| earlier + later),
        kernel: earlier.kernel.zip(later.kernel).map(kernel),
    }
}

/// The counts of a thread.
fn seen(counters: &VcpuCounters, last_stall: Duration) -> Seen {
    Seen {
        plugged: !counters.gone,
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
