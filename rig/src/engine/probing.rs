//! The eBPF probes beside a cell: attached to the process whose vCPUs run, drained at each sample, asked at the end.
//!
//! Any process will do: this one, with the rig's own guest, or a VMM's. Where the probes can't be had the cell goes on
//! without, and says so, unless they are required.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use dirtyrig_probes::{
    Error, Event, ExitReason, Options, Probes, Stall as Seen, StallCause, Status, VcpuCounters, VcpuId, monotonic_now,
};

use super::target::Target;
use crate::{
    engine::join::{Join, asked_part},
    model::{ExitRow, ExitSource, KernelCounts, KernelStall, Probed, Stall},
    scenario::probe_mode::ProbeMode,
};

/// The probes are required and can't be had: exit code [`MISSING`](crate::commands::exit::MISSING).
#[derive(Debug, thiserror::Error)]
#[error("the probes can't watch, and `--probes require` asks for them: {why}")]
pub struct NoProbes {
    why: String,
}

impl NoProbes {
    /// Why they can't, and where one thing mends it, what to do.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// Tries, before anything runs, whether the probes can be had on this machine. Under `auto` a cell can do without them:
/// then the mode becomes `off`, with a sentence for the user; another one says what they would not see.
pub fn resolve(mode: ProbeMode) -> Result<(ProbeMode, Vec<String>), NoProbes> {
    if mode == ProbeMode::Off {
        return Ok((mode, Vec::new()));
    }
    let tried = Probes::attach(&options(std::process::id())).and_then(|probes| probes.status());
    let problem = match tried {
        Ok(status) => match blind_spots(&status) {
            spots if spots.is_empty() => return Ok((mode, Vec::new())),
            spots => spots.join("; "),
        },
        Err(error) => said(&error),
    };
    // What is left of the probes without one of their events has columns that mean nothing, so it is all or nothing.
    match mode {
        ProbeMode::Require => Err(NoProbes { why: problem }),
        _ => Ok((
            ProbeMode::Off,
            vec![format!(
                "without probes: {problem} (`--probes off` says nothing of this)"
            )],
        )),
    }
}

fn options(pid: u32) -> Options {
    Options::new(dirtyrig_probes::Target::Pid(pid))
}

/// The events that could not be attached, and why; those that share a reason in one sentence.
fn blind_spots(status: &Status) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for event in &status.events {
        if let Err(why) = &event.attached {
            reasons.entry(why).or_default().push(event.event.to_string());
        }
    }
    let sentences = reasons.into_iter();
    sentences
        .map(|(why, events)| format!("{} can't be attached: {why}", events.join(", ")))
        .collect()
}

/// An error of the probes and its causes, in one line.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace('\n', " ")
}

/// The probes of one cell.
pub(super) struct Probing {
    /// What watches, or why nothing does any more.
    watching: Result<Watching, String>,
    required: bool,
}

impl Probing {
    /// Attaches the probes to the process of `target`; `None` where they are off, or there is nothing to watch.
    pub(super) fn of(target: &dyn Target, mode: ProbeMode) -> anyhow::Result<Option<Self>> {
        let (ProbeMode::Auto | ProbeMode::Require, Some(pid)) = (mode, target.probed_pid()) else {
            return Ok(None);
        };
        let probing = Self {
            watching: Watching::attach(pid, target).map_err(|error| said(&error)),
            required: mode == ProbeMode::Require,
        };
        probing.check()?;
        Ok(Some(probing))
    }

    /// Reads the counts for the sample taken at `at`, by the target's clock.
    pub(super) fn sample(&mut self, at: Duration) -> anyhow::Result<()> {
        self.attempt(|watching| watching.sample(at)).map(drop)
    }

    /// The cell begins at `zero`, by the target's clock: what was before is forgotten.
    pub(super) fn begin(&mut self, zero: Duration) -> anyhow::Result<()> {
        self.attempt(|watching| watching.begin(zero)).map(drop)
    }

    /// Reads the stalls that have ended. The limiter's are to be taken after this and handed to
    /// [`stalls`](Self::stalls): a vCPU writes its books before it enters, so they hold every stall that is read here.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        self.attempt(Watching::drain).map(drop)
    }

    /// The stalls that were drained, joined with the limiter's own, which are on the cell's clock.
    pub(super) fn stalls(&mut self, limiter: &[Stall]) -> Vec<KernelStall> {
        self.watching
            .as_mut()
            .map_or_else(|_| Vec::new(), |watching| watching.stalls(limiter))
    }

    /// What they saw of cell `cell`, whose stalls were `stalls`.
    pub(super) fn finish(mut self, cell: u32, stalls: Vec<KernelStall>) -> anyhow::Result<Probed> {
        let probed = self.attempt(|watching| watching.finish(cell))?;
        let seen = probed.unwrap_or_default();
        let failure = self.watching.err().map(|why| format!("without probes: {why}"));
        Ok(Probed {
            stalls,
            notes: seen.notes.into_iter().chain(failure).collect(),
            ..seen
        })
    }

    /// Does something with the probes while they work. Once they fail, the cell goes on without them unless they are
    /// required.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Watching) -> Result<T, Error>) -> anyhow::Result<Option<T>> {
        let Ok(watching) = &mut self.watching else {
            return Ok(None);
        };
        match work(watching) {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                self.watching = Err(said(&error));
                self.check()?;
                Ok(None)
            }
        }
    }

    fn check(&self) -> Result<(), NoProbes> {
        match &self.watching {
            Err(why) if self.required => Err(NoProbes { why: why.clone() }),
            _ => Ok(()),
        }
    }
}

/// Probes that are attached.
struct Watching {
    probes: Probes,
    /// Where the target's clock has its 0, on the clock of the probes.
    epoch: Duration,
    /// Where the cell has its 0, by the target's clock; none while it warms up.
    zero: Option<Duration>,
    vcpus: usize,
    /// The index of each thread's vCPU; `None` where it is KVM's id.
    indices: Option<HashMap<u32, usize>>,
    counts: Vec<(f64, Vec<KernelCounts>)>,
    /// The exits before 0.
    exits_before: HashMap<(usize, ExitReason), u64>,
    /// Stalls that have ended and were not joined yet.
    drained: Vec<Seen>,
    join: Join,
}

impl Watching {
    fn attach(pid: u32, target: &dyn Target) -> Result<Self, Error> {
        Ok(Self {
            probes: Probes::attach(&options(pid))?,
            epoch: epoch(target),
            zero: None,
            vcpus: target.max_vcpus(),
            indices: target.indices(),
            counts: Vec::new(),
            exits_before: HashMap::new(),
            drained: Vec::new(),
            join: Join::default(),
        })
    }

    fn drain(&mut self) -> Result<(), Error> {
        let drained = &mut self.drained;
        self.probes.drain(|event| {
            if let Event::Stall(stall) = event {
                drained.push(stall);
            }
        })?;
        Ok(())
    }

    fn begin(&mut self, zero: Duration) -> Result<(), Error> {
        self.drain()?;
        self.drained.clear();
        self.zero = Some(zero);
        let threads = self.probes.vcpus()?;
        self.exits_before = self.exits(&threads).map(|(key, _, count)| (key, count)).collect();
        self.counts = vec![(0.0, self.sum(&threads))];
        Ok(())
    }

    fn sample(&mut self, at: Duration) -> Result<(), Error> {
        self.drain()?;
        if let Some(zero) = self.zero {
            let threads = self.probes.vcpus()?;
            self.counts
                .push((at.as_secs_f64() - zero.as_secs_f64(), self.sum(&threads)));
        }
        Ok(())
    }

    /// The index of the vCPU that a thread runs, or ran until it was unplugged.
    fn index(&self, thread: u32, vcpu: Option<VcpuId>) -> Option<usize> {
        match &self.indices {
            Some(indices) => indices.get(&thread).copied(),
            None => vcpu.and_then(VcpuId::kvm_id).map(|id| id as usize),
        }
    }

    /// The counts of each vCPU; one that was moved to another thread has those of both.
    fn sum(&self, threads: &[VcpuCounters]) -> Vec<KernelCounts> {
        let mut sums = vec![KernelCounts::default(); self.vcpus];
        for thread in threads {
            if let Some(sum) = self
                .index(thread.thread, thread.vcpu)
                .and_then(|vcpu| sums.get_mut(vcpu))
            {
                sum.pushed_pages += thread.pushed_pages;
                sum.reset_pages += thread.reset_entries;
                sum.ring_full_exits += thread.ring_full_exits;
                sum.userspace_exits += thread.userspace_exits;
                sum.hardware_exits += thread.exits;
            }
        }
        sums
    }

    fn exits<'a>(&self, threads: &'a [VcpuCounters]) -> impl Iterator<Item = ((usize, ExitReason), &'a str, u64)> {
        let index = |thread: &VcpuCounters| self.index(thread.thread, thread.vcpu).filter(|&vcpu| vcpu < self.vcpus);
        let known = threads.iter().filter_map(move |thread| Some((index(thread)?, thread)));
        known.flat_map(|(vcpu, thread)| {
            let reasons = thread.exit_reasons.iter();
            reasons.map(move |exit| ((vcpu, exit.reason), exit.name.as_str(), exit.count))
        })
    }

    /// The pauses among the drained stalls: full rings, and interruptions for which the limiter has a pause.
    fn stalls(&mut self, limiter: &[Stall]) -> Vec<KernelStall> {
        self.join.limiter(limiter);
        let start = self.epoch + self.zero.unwrap_or_default();
        let mut pauses = Vec::new();
        for stall in std::mem::take(&mut self.drained) {
            let index = self.index(stall.thread, stall.vcpu);
            let (Some(vcpu), Some(at)) = (index, stall.exit_at.checked_sub(start)) else {
                continue;
            };
            let own = self.join.find(vcpu, at, at + stall.length());
            if stall.cause == StallCause::RingFull || own.is_some() {
                pauses.push(KernelStall {
                    vcpu,
                    at,
                    length: stall.length(),
                    asked: own.as_ref().map(asked_part),
                });
            }
        }
        pauses
    }

    fn finish(&mut self, cell: u32) -> Result<Probed, Error> {
        let (threads, status) = (self.probes.vcpus()?, self.probes.status()?);
        let mut totals: HashMap<(usize, ExitReason), (&str, u64)> = HashMap::new();
        for (key, name, count) in self.exits(&threads) {
            totals.entry(key).or_insert((name, 0)).1 += count;
        }
        let since = totals.into_iter().map(|((vcpu, reason), (name, count))| {
            let before = self.exits_before.get(&(vcpu, reason)).copied().unwrap_or(0);
            row(cell, vcpu, reason, name, count.saturating_sub(before))
        });
        let mut exits: Vec<ExitRow> = since.filter(|row| row.count != Some(0)).collect();
        let sees = status.sees();
        if !sees.hardware_exits {
            let is_there = |vcpu: &usize| {
                self.indices
                    .as_ref()
                    .is_none_or(|indices| indices.values().any(|index| index == vcpu))
            };
            exits.extend((0..self.vcpus).filter(is_there).map(|vcpu| unseen(cell, vcpu)));
        }
        exits.sort_by(|a, b| {
            let order = |row: &ExitRow| (row.vcpu, row.source, std::cmp::Reverse(row.count));
            order(a).cmp(&order(b)).then_with(|| a.reason.cmp(&b.reason))
        });
        let lost = status.lost;
        Ok(Probed {
            counts: std::mem::take(&mut self.counts),
            stalls: Vec::new(),
            exits,
            sees,
            lost: lost.total(),
            notes: status.notes,
        })
    }
}

fn row(cell: u32, vcpu: usize, reason: ExitReason, name: &str, count: u64) -> ExitRow {
    ExitRow {
        cell,
        vcpu: vcpu as u32,
        source: if reason.is_hardware() {
            ExitSource::Hardware
        } else {
            ExitSource::Userspace
        },
        reason: name.to_owned(),
        count: Some(count),
    }
}

/// No zero where nothing can be seen.
fn unseen(cell: u32, vcpu: usize) -> ExitRow {
    ExitRow {
        cell,
        vcpu: vcpu as u32,
        source: ExitSource::Hardware,
        reason: "not known: kvm_exit did not fire".to_owned(),
        count: None,
    }
}

/// Where the clock of `target` has its 0 on the clock of the probes.
fn epoch(target: &dyn Target) -> Duration {
    // The narrowest of a few readings: this thread may be moved aside in the middle of one.
    const TRIES: usize = 16;
    let reading = || {
        let before = monotonic_now();
        let now = target.now();
        let width = monotonic_now().saturating_sub(before);
        (width, (before + width / 2).saturating_sub(now))
    };
    let narrowest = (0..TRIES).map(|_| reading()).min();
    narrowest.map_or(Duration::ZERO, |(_, epoch)| epoch)
}
