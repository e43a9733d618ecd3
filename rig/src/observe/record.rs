//! Keeps what is seen as a recording: a cell per process, drawn by `plot` like any other.
//!
//! Nobody outside the guest knows its true rate, nor what its limiter believes, asks or throttles: these are empty, and the
//! pages that the kernel logged stand where the limiter's reading does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use dirtyrig_limiter::units::Pages;
use dirtyrig_probes::{
    Event, StallCause, VcpuCounters, VcpuId,
    identity::{Numbers, Vm, vcpu_threads, vm_of},
};
use serde_json::{Map, Value, json};

use super::{
    outlet::{Outlet, Report},
    processes,
    watched::{Reading, Sees},
};
use crate::{
    analysis::{CellFacts, add_probes, summarize},
    model::{ExitRow, ExitSource, KernelCounts, KernelStall, LawFacts, Probed, Sample, Stall, Verdict},
    recording::{Manifest, Recorder, schema::OBSERVED},
};

/// A reading of pages logged is taken over this long, as a limiter's would be.
const READ_OVER: Duration = Duration::from_secs(1);

/// Samples of a recording are this far apart, as those of a run are: figures show settling, which takes less than a second.
const SAMPLE: Duration = Duration::from_millis(100);

/// A recording being made.
pub struct Record {
    recorder: Recorder,
    /// When the first reading was taken, which is where everything is counted from.
    begun: Option<Duration>,
    cells: BTreeMap<u32, Cell>,
}

/// One process.
struct Cell {
    number: u32,
    vm: Vm,
    ring_entries: Option<u32>,
    /// Whether its pages can be seen.
    sees_pages: bool,
    /// Which row is whose: a number for each of KVM's ids.
    numbers: Numbers,
    /// By number.
    vcpus: BTreeMap<u32, Vcpu>,
    /// The counts of each vCPU thread at the first reading.
    base: Option<HashMap<u32, VcpuCounters>>,
    samples: Vec<Sample>,
    counts: Vec<(f64, Vec<KernelCounts>)>,
    /// Every pause, and how many of them are in the log.
    stalls: Vec<KernelStall>,
    logged: usize,
    logged_until: Duration,
    exits: BTreeMap<(u32, ExitSource, String), u64>,
}

/// What was seen of one vCPU, oldest first.
#[derive(Default)]
struct Vcpu {
    recent: VecDeque<(Duration, u64)>,
    in_run: Duration,
    last_pause: Duration,
    paused: Duration,
}

impl Record {
    /// Begins a recording of `pids` in a folder that holds nothing.
    pub fn begin(
        dir: PathBuf,
        machine: Map<String, Value>,
        pids: impl IntoIterator<Item = u32>,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let cells: BTreeMap<u32, Cell> = (0..)
            .zip(pids)
            .map(|(number, pid)| (pid, Cell::of(number, pid)))
            .collect();
        let watched: Vec<_> = cells
            .iter()
            .map(|(pid, cell)| {
                let Vm {
                    process, name, uuid, ..
                } = &cell.vm;
                let kind = cell.numbers.kind().name();
                json!({
                    "cell": cell.number, "pid": pid, "process": process, "vm": name, "uuid": uuid, "vcpu_is": kind,
                })
            })
            .collect();
        let what = json!({"observed": watched, "interval_ms": interval.as_millis() as u64});
        let manifest = Manifest::new(0, cells.values().map(|cell| cell.number), machine, what);
        Ok(Self {
            recorder: Recorder::create(dir, manifest)?,
            begun: None,
            cells,
        })
    }
}

impl Record {
    fn since_begun(&self, reading: &Reading) -> Duration {
        self.begun
            .map_or(Duration::ZERO, |begun| reading.at.saturating_sub(begun))
    }
}

impl Outlet for Record {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if let Event::Stall(stall) = event
            && let Some(cell) = self.cells.get_mut(&stall.process)
            && let Some(number) = stall.vcpu.and_then(|vcpu| cell.row_of(vcpu))
            && let Some(at) = self.begun.and_then(|begun| stall.exit_at.checked_sub(begun))
            // Most interruptions are kicks, which throttle nobody: they are not pauses.
            && stall.cause == StallCause::RingFull
        {
            let vcpu = cell.vcpus.entry(number).or_default();
            vcpu.last_pause = stall.length();
            vcpu.paused += stall.length();
            cell.stalls.push(KernelStall {
                vcpu: number as usize,
                at,
                length: stall.length(),
                asked: None,
            });
        }
        Ok(())
    }

    fn reads_every(&self) -> Option<Duration> {
        Some(SAMPLE)
    }

    fn reading(&mut self, reading: &Reading) -> anyhow::Result<()> {
        let first = self.begun.is_none();
        let zero = *self.begun.get_or_insert(reading.at);
        let t = reading.at.saturating_sub(zero);
        for (&pid, cell) in &mut self.cells {
            let threads = reading.vcpus.iter().filter(|vcpu| vcpu.process == pid);
            let rows = cell.sample(t, zero, reading.sees, threads);
            if first {
                continue;
            }
            self.recorder.append_samples(&rows)?;
            cell.samples.extend(rows);
        }
        Ok(())
    }

    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let now = self.since_begun(&report.reading);
        for cell in self.cells.values_mut() {
            cell.log(&mut self.recorder, now)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, last: &Reading) -> anyhow::Result<Option<String>> {
        let now = self.since_begun(last);
        for (&pid, cell) in &mut self.cells {
            cell.log(&mut self.recorder, now)?;
            let threads = last.vcpus.iter().filter(|vcpu| vcpu.process == pid);
            cell.finish(&mut self.recorder, threads, last)?;
        }
        let dir = self.recorder.dir().to_owned();
        self.recorder.finish()?;
        Ok(Some(format!("recording: {}", dir.display())))
    }
}

impl Cell {
    fn of(number: u32, pid: u32) -> Self {
        let open: BTreeSet<u32> = processes::vcpus(pid).into_iter().collect();
        // Of those that are open, some may be unplugged: they have no thread.
        let found = vcpu_threads(pid, &open, &BTreeSet::new(), true);
        let mut numbers = Numbers::new(found.values().map(|found| found.vcpu));
        let rows = found.iter().map(|(&id, found)| numbers.give(id, found.vcpu.index));
        let vcpus = rows.map(|number| (number, Vcpu::default())).collect();
        Self {
            number,
            vm: vm_of(pid),
            numbers,
            vcpus,
            ring_entries: processes::ring_entries(pid),
            sees_pages: true,
            base: None,
            samples: Vec::new(),
            counts: Vec::new(),
            stalls: Vec::new(),
            logged: 0,
            logged_until: Duration::ZERO,
            exits: BTreeMap::new(),
        }
    }

    /// The row of a vCPU, once its KVM id is known.
    fn row_of(&mut self, vcpu: VcpuId) -> Option<u32> {
        Some(self.numbers.give(vcpu.kvm_id()?, vcpu.index))
    }

    /// One more than the highest number.
    fn room(&self) -> usize {
        self.vcpus.keys().last().map_or(0, |&highest| highest as usize + 1)
    }

    /// What of this process is seen, of what the kernel shows.
    fn seen(&self, sees: Sees) -> Sees {
        Sees {
            pages: sees.pages && self.sees_pages,
            ..sees
        }
    }

    /// The rows of a reading taken `t` after `zero`, when the recording began.
    fn sample<'a>(
        &mut self,
        t: Duration,
        zero: Duration,
        sees: Sees,
        threads: impl Iterator<Item = &'a VcpuCounters>,
    ) -> Vec<Sample> {
        let threads: Vec<&VcpuCounters> = threads.collect();
        self.sees_pages &= threads.iter().all(|thread| thread.sees_pages);
        let sees = self.seen(sees);
        let rows: HashMap<u32, u32> = threads
            .iter()
            .filter_map(|thread| Some((thread.thread, self.row_of(thread.vcpu?)?)))
            .collect();
        for &number in rows.values() {
            self.vcpus.entry(number).or_default();
        }
        let mut sums = vec![(KernelCounts::default(), Duration::ZERO, t); self.room()];
        let base = self
            .base
            .get_or_insert_with(|| threads.iter().map(|&thread| (thread.thread, thread.clone())).collect());
        for thread in threads {
            let Some(&number) = rows.get(&thread.thread) else {
                continue;
            };
            let (counts, in_run, read_at) = &mut sums[number as usize];
            let base = base.get(&thread.thread);
            let gain = |of: fn(&VcpuCounters) -> u64| of(thread).saturating_sub(base.map_or(0, of));
            counts.pushed_pages += gain(|thread| thread.pushed_pages);
            counts.reset_pages += gain(|thread| thread.reset_entries);
            counts.ring_full_exits += gain(|thread| thread.ring_full_exits);
            counts.userspace_exits += gain(|thread| thread.userspace_exits);
            counts.hardware_exits += gain(|thread| thread.exits);
            *in_run += thread.in_run;
            *read_at = thread.at.saturating_sub(zero);
        }
        let cell = self.number;
        let row = |(&number, vcpu): (&u32, &mut Vcpu)| {
            let (counts, in_run, read_at) = &sums[number as usize];
            Sample {
                t_s: t.as_secs_f64(),
                ..vcpu.row((cell, number), *read_at, counts, *in_run, sees)
            }
        };
        let rows = self.vcpus.iter_mut().map(row).collect();
        self.counts
            .push((t.as_secs_f64(), sums.into_iter().map(|(counts, ..)| counts).collect()));
        rows
    }

    /// Puts the pauses that ended since the last call into the log.
    fn log(&mut self, recorder: &mut Recorder, now: Duration) -> anyhow::Result<()> {
        let fresh = &self.stalls[self.logged..];
        let own: Vec<Stall> = fresh.iter().map(pause).collect();
        let interval = self.logged_until..now;
        recorder.append_stalls(self.number, &interval, &own)?;
        recorder.append_kernel_stalls(self.number, &interval, fresh)?;
        self.logged = self.stalls.len();
        self.logged_until = now;
        Ok(())
    }

    fn finish<'a>(
        &mut self,
        recorder: &mut Recorder,
        threads: impl Iterator<Item = &'a VcpuCounters>,
        last: &Reading,
    ) -> anyhow::Result<()> {
        for thread in threads {
            let Some(number) = thread.vcpu.and_then(|vcpu| self.row_of(vcpu)) else {
                continue;
            };
            let base = self.base.as_ref().and_then(|base| base.get(&thread.thread));
            let before = |reason| {
                let earlier = base.and_then(|base| base.exit_reasons.iter().find(|exit| exit.reason == reason));
                earlier.map_or(0, |exit| exit.count)
            };
            for exit in &thread.exit_reasons {
                let source = if exit.reason.is_hardware() {
                    ExitSource::Hardware
                } else {
                    ExitSource::Userspace
                };
                *self.exits.entry((number, source, exit.name.clone())).or_default() +=
                    exit.count.saturating_sub(before(exit.reason));
            }
        }
        let exits: Vec<ExitRow> = std::mem::take(&mut self.exits)
            .into_iter()
            .map(|((vcpu, source, reason), count)| ExitRow {
                cell: self.number,
                vcpu,
                source,
                reason,
                count: Some(count),
            })
            .collect();
        let facts = CellFacts {
            cell: self.number,
            repetition: 0,
            vmm: self.vm.process.clone(),
            limiter: OBSERVED.to_owned(),
            guests: vec![None; self.room()],
            guest_cycle: None,
            ring_entries: self.ring_entries,
            period: READ_OVER,
            memory_mib: None,
            sees_pauses: last.sees.stall_ends,
            law: LawFacts {
                period: Some(READ_OVER),
                whole_rings: false,
                ring_cycles: false,
                cap_share: None,
                tolerance_mib_s: None,
            },
            measure_from_s: Some(0.0),
        };
        let pauses: Vec<Stall> = self.stalls.iter().map(pause).collect();
        let mut summaries = summarize(&facts, &self.samples, &pauses);
        let probed = Probed {
            counts: std::mem::take(&mut self.counts),
            stalls: std::mem::take(&mut self.stalls),
            exits: Vec::new(),
            sees: self.seen(last.sees),
            lost: last.lost.total(),
            notes: last.notes.clone(),
        };
        add_probes(&mut summaries, &self.samples, &probed);
        for summary in &mut summaries {
            // Analysis takes a cell without a quota for one without a limit; here nobody knows.
            summary.unlimited_mib_s = None;
            summary.verdict = Verdict::Unknown;
            let logs = summary.ring_mib_s.map_or_else(
                || "what it logs is not known".to_owned(),
                |rate| format!("it logs {rate:.0} MiB/s"),
            );
            summary.reason =
                format!("observed from outside: {logs}, and whether a limiter holds it there is not known");
        }
        recorder.append_exits(&exits)?;
        // A process in which no vCPU was ever seen has nothing to sum up: its cell stays unfinished.
        if !summaries.is_empty() {
            recorder.append_summaries(self.number, &summaries)?;
        }
        Ok(())
    }
}

impl Vcpu {
    /// The row of counts that were read `t` after the recording began.
    fn row(
        &mut self,
        (cell, vcpu): (u32, u32),
        t: Duration,
        counts: &KernelCounts,
        in_run: Duration,
        sees: Sees,
    ) -> Sample {
        let last = self.recent.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.recent.push_back((t, counts.pushed_pages));
        while self.recent.len() > 2 && t.saturating_sub(self.recent[1].0) >= READ_OVER {
            self.recent.pop_front();
        }
        // Before the first reading nothing was counted.
        let (from, pages) = match self.recent.len() {
            1 => (Duration::ZERO, 0),
            _ => self.recent[0],
        };
        let ran = in_run.saturating_sub(std::mem::replace(&mut self.in_run, in_run));
        let span = t.saturating_sub(last).as_secs_f64();
        let share = |ran: Duration| (100.0 * ran.as_secs_f64() / span).min(100.0);
        let utilisation_pct = (sees.runs && span > 0.0).then(|| share(ran));
        let logged = Pages(counts.pushed_pages.saturating_sub(pages)).per(t.saturating_sub(from));
        let micros = |length: Duration| length.as_micros() as u64;
        Sample {
            cell,
            vcpu,
            t_s: t.as_secs_f64(),
            ring_mib_s: logged.filter(|_| sees.pages).map(|rate| rate.0),
            throttle_us: sees.stall_ends.then(|| micros(self.last_pause)),
            utilisation_pct,
            harvested_pages: sees.pages.then_some(counts.pushed_pages),
            ring_full_exits: sees.returns.then_some(counts.ring_full_exits),
            exits: sees.returns.then_some(counts.userspace_exits),
            slept_us: sees.stall_ends.then(|| micros(self.paused)),
            ..Sample::default()
        }
    }
}

/// A pause as the analysis takes it: of what was asked for, nothing is known.
fn pause(stall: &KernelStall) -> Stall {
    Stall {
        vcpu: stall.vcpu,
        at: stall.at,
        length: stall.length,
        asked: Duration::ZERO,
        slept: Duration::ZERO,
    }
}
