//! The probes of the processes asked for: drained on a timer, read at each report.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use dirtyrig_probes::Sees;
use dirtyrig_probes::{
    Error, Event, Lost, Options, Probes, Target, VcpuCounters,
    identity::{NumberKind, Vm, vms},
    monotonic_now,
};

use super::names::Names;

/// Whose vCPUs are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// These processes.
    Pids(BTreeSet<u32>),
    /// Every VM on the host, those to come included.
    All,
}

/// Nothing can be watched on this machine, or by this user: exit code [`MISSING`](crate::commands::exit::MISSING).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NoObserver(Error);

/// What the counters were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When, on the clock of the probes.
    pub at: Duration,
    /// Every vCPU thread, by process and vCPU.
    pub vcpus: Vec<VcpuCounters>,
    /// What their VMs are called, by process.
    pub vms: BTreeMap<u32, Vm>,
    /// Which processes have ended.
    pub ended: BTreeSet<u32>,
    /// What the kernel shows here.
    pub sees: Sees,
    /// What could not be recorded.
    pub lost: Lost,
    /// What must be known to read the figures, in sentences.
    pub notes: Vec<String>,
}

impl Reading {
    /// What the numbers of the vCPUs of a process are, and KVM's ids where these are others: in the order of the numbers.
    pub fn numbers(&self, pid: u32) -> Option<(NumberKind, Vec<u32>)> {
        let there = self.vcpus.iter().filter(|vcpu| vcpu.process == pid && !vcpu.gone);
        let vcpus: Vec<&VcpuCounters> = there.collect();
        let kind = vcpus.iter().find_map(|vcpu| vcpu.number)?.kind;
        let ids: Option<Vec<u32>> = vcpus.iter().map(|vcpu| vcpu.vcpu?.kvm_id()).collect();
        let differ = |ids: &Vec<u32>| {
            ids.iter()
                .zip(&vcpus)
                .any(|(id, vcpu)| vcpu.number.is_some_and(|n| n.value != *id))
        };
        Some((kind, ids.filter(differ).unwrap_or_default()))
    }
}

/// Attached probes.
pub struct Watched {
    /// One for all, or one per process.
    probes: Vec<(Option<u32>, Probes)>,
    names: Names,
}

impl Watched {
    /// Attaches the probes; `trace` says whether every page is wanted.
    pub fn attach(whom: &Whom, trace: bool) -> anyhow::Result<Self> {
        let targets: Vec<(Option<u32>, Target)> = match whom {
            Whom::All => vec![(None, Target::AllKvm)],
            Whom::Pids(pids) => pids.iter().map(|&pid| (Some(pid), Target::Pid(pid))).collect(),
        };
        let attach = |(pid, target)| {
            let options = Options::new(target);
            let options = if trace { options.tracing() } else { options };
            Ok((pid, Probes::attach(&options).map_err(sorted)?))
        };
        let probes = targets.into_iter().map(attach).collect::<anyhow::Result<Vec<_>>>()?;
        let mut watched = Self {
            probes,
            names: Names::default(),
        };
        match whom {
            Whom::All => vms().iter().for_each(|vm| watched.names.look(vm.pid)),
            Whom::Pids(pids) => pids.iter().for_each(|&pid| watched.names.look(pid)),
        }
        Ok(watched)
    }

    /// Hands every event since the last call to `sink`.
    pub fn drain(&mut self, mut sink: impl FnMut(&Event)) -> Result<(), Error> {
        for (_, probes) in &mut self.probes {
            probes.drain(|event| sink(&event))?;
        }
        Ok(())
    }

    /// Whether a process that was asked for has ended, and is not among those that are known to have.
    pub fn news_of_ends(&self, known: &BTreeSet<u32>) -> bool {
        let mut asked = self.probes.iter();
        asked.any(|(pid, probes)| pid.is_some_and(|pid| !known.contains(&pid)) && !probes.target_lives())
    }

    /// Reads the counters.
    pub fn read(&mut self) -> Result<Reading, Error> {
        let mut reading = Reading {
            at: monotonic_now(),
            ..Reading::default()
        };
        for (pid, probes) in &mut self.probes {
            let status = probes.status()?;
            reading.sees = reading.sees.or(status.sees());
            reading.lost = sum(reading.lost, status.lost);
            for note in status.notes {
                if !reading.notes.contains(&note) {
                    reading.notes.push(note);
                }
            }
            reading.vcpus.extend(probes.vcpus()?);
            if let Some(pid) = pid.filter(|_| !probes.target_lives()) {
                reading.ended.insert(pid);
            }
        }
        let processes: BTreeSet<u32> = reading.vcpus.iter().map(|vcpu| vcpu.process).collect();
        for pid in processes {
            self.names.look(pid);
        }
        reading.vms = self.names.all();
        // Whether every vCPU of a process that was seen has gone.
        let mut gone: BTreeMap<u32, bool> = BTreeMap::new();
        for vcpu in &reading.vcpus {
            *gone.entry(vcpu.process).or_insert(true) &= vcpu.gone;
        }
        let gone = gone.into_iter().filter_map(|(pid, gone)| gone.then_some(pid));
        reading.ended.extend(gone.filter(|&pid| !lives(pid)));
        Ok(reading)
    }
}

/// Tells what the machine lacks from what was asked wrongly.
fn sorted(error: Error) -> anyhow::Error {
    match error {
        Error::Privilege { .. } | Error::Load { .. } | Error::NothingAttached { .. } | Error::PidNamespace => {
            NoObserver(error).into()
        }
        other => other.into(),
    }
}

fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn sum(a: Lost, b: Lost) -> Lost {
    Lost {
        stalls: a.stalls + b.stalls,
        pushes: a.pushes + b.pushes,
        threads: a.threads + b.threads,
        exits: a.exits + b.exits,
        histograms: a.histograms + b.histograms,
        rings: a.rings + b.rings,
        vcpus: a.vcpus + b.vcpus,
    }
}
