//! The loop: drains, reads, hands on, until the time is up, the VM has gone, or somebody says so.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use dirtyrig_probes::{Event, monotonic_now};

use super::{
    outlet::{Outlet, Report},
    rates::Rates,
    stdout,
    view::View,
    watched::{Reading, Watched},
};
use crate::{
    engine::interrupt::{Clock as _, Interrupt, Waited},
    stdout::StdoutClosed,
};

/// How often events are drained: a tenth of what the buffers for a trace hold at full speed. It costs what happened, not
/// what there is: nothing is read of a vCPU of which there is no event.
const TICK: Duration = Duration::from_millis(100);

/// Counters are read for each report, and for whatever [`Outlet::reads_every`] asks for. The kernel's counts only grow, and
/// the pages of a ring are told by its index at that moment. So the difference of two readings is right however far apart
/// they are. A reading costs a few system calls per vCPU, so more of them would cost in proportion to all vCPUs. Reports may
/// be an hour apart: this often at least they are read for what doesn't wait, which is VMs that come, and vCPU threads that
/// have ended, which make room for new ones.
const READ_AT_LEAST: Duration = Duration::from_secs(1);

/// What is to be done.
pub struct Session {
    /// The probes.
    pub watched: Watched,
    /// The processes to watch; once they have all ended, it is over. Without any it goes on.
    pub pids: BTreeSet<u32>,
    /// Time between reports.
    pub interval: Duration,
    /// When it is over.
    pub duration: Option<Duration>,
    /// The live view, which has the terminal; without it notes come as things happen.
    pub view: Option<View>,
    /// Is told what happens to processes and probes, and what outlets say at their end.
    pub note: fn(&str),
    /// Everything else.
    pub outlets: Vec<Box<dyn Outlet>>,
    /// Whether lines go to stdout, so that it is over when nobody reads them.
    pub to_stdout: bool,
}

/// Why it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The time was up, or the user said so where no time was set.
    Done,
    /// Every process that was watched has ended.
    Gone,
    /// The user said so before the time was up.
    Interrupted,
}

impl Session {
    /// Runs it. Whatever ends it, outlets get to finish what they keep; what they then say is told.
    pub fn run(mut self, interrupt: &Interrupt) -> anyhow::Result<Ended> {
        let mut told = Told::new(self.note);
        let mut last = Reading {
            at: monotonic_now(),
            ..Reading::default()
        };
        let outcome = self.observe(interrupt, &mut last, &mut told);
        // The terminal is given back before anything is said.
        drop(self.view.take());
        if !told.at_once {
            told.tell_all();
        }
        let mut failure = None;
        for outlet in self.outlets {
            match outlet.finish(&last) {
                Ok(words) => words.iter().for_each(|words| (self.note)(words)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (outcome, failure) {
            (Ok(ended), None) => Ok(ended),
            (Err(error), _) | (Ok(_), Some(error)) => Err(error),
        }
    }

    fn observe(&mut self, interrupt: &Interrupt, last: &mut Reading, told: &mut Told) -> anyhow::Result<Ended> {
        told.at_once = self.view.is_none();
        // What was counted while the rest was set up is no part of the first interval.
        *last = self.watched.read()?;
        let (begun, begun_at) = (Instant::now(), last.at);
        let mut rates = Rates::from(begun_at);
        rates.end(last);
        for outlet in &mut self.outlets {
            outlet.reading(last)?;
        }
        let end = self.duration.map(|duration| begun + duration);
        let wanted = self.outlets.iter().filter_map(|outlet| outlet.reads_every());
        let read_every = wanted.fold(READ_AT_LEAST, Duration::min);
        let mut next_report = begun + self.interval;
        let mut next_read = begun + read_every;
        let mut next_tick = begun + TICK;
        loop {
            let until = next_tick
                .min(next_read)
                .min(next_report)
                .min(end.unwrap_or(next_report));
            let stopped = self.wait(interrupt, until)?;
            self.drain(&mut rates)?;
            let now = Instant::now();
            while next_tick <= now {
                next_tick += TICK;
            }
            let over = stopped || end.is_some_and(|end| now >= end);
            let is_due = over || now >= next_report || now >= next_read;
            // A VM that ends is told of at once, lest its last rate be one over time in which it was not there.
            if !is_due && !self.watched.news_of_ends(&last.ended) {
                continue;
            }
            while next_read <= now {
                next_read += read_every;
            }
            let reading = self.watched.read()?;
            for outlet in &mut self.outlets {
                outlet.reading(&reading)?;
            }
            told.news(&reading, now.duration_since(begun));
            let gone = !self.pids.is_empty() && self.pids.is_subset(&reading.ended);
            if over || gone || now >= next_report {
                let report = Report {
                    t_s: reading.at.saturating_sub(begun_at).as_secs_f64(),
                    rates: rates.end(&reading),
                    reading: reading.clone(),
                };
                if let Some(view) = &mut self.view {
                    view.report(&report, &told.lines)?;
                }
                for outlet in &mut self.outlets {
                    outlet.report(&report)?;
                }
            }
            *last = reading;
            if gone {
                return Ok(Ended::Gone);
            }
            if over {
                let cut_short = stopped && end.is_some_and(|end| now < end);
                return Ok(if cut_short { Ended::Interrupted } else { Ended::Done });
            }
            while next_report <= now {
                next_report += self.interval;
            }
        }
    }

    /// Waits; says whether the user wants it to end.
    fn wait(&mut self, interrupt: &Interrupt, until: Instant) -> anyhow::Result<bool> {
        let quit = match &mut self.view {
            Some(view) => view.wait(until)?,
            None => false,
        };
        let until = if self.view.is_some() { Instant::now() } else { until };
        let stopped = interrupt.wait_until(until) == Waited::Interrupted;
        if (self.to_stdout || self.view.is_some()) && stdout::has_gone() {
            return Err(StdoutClosed.into());
        }
        Ok(quit || stopped)
    }

    fn drain(&mut self, rates: &mut Rates) -> anyhow::Result<()> {
        let outlets = &mut self.outlets;
        let mut failure = None;
        self.watched.drain(|event| {
            if let Event::Stall(stall) = event {
                rates.stall(stall);
            }
            if failure.is_none() {
                failure = outlets.iter_mut().find_map(|outlet| outlet.event(event).err());
            }
        })?;
        failure.map_or(Ok(()), Err)
    }
}

/// What was said of processes and probes; each once.
struct Told {
    note: fn(&str),
    lines: Vec<String>,
    known: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    notes: BTreeSet<String>,
    at_once: bool,
    any: bool,
}

impl Told {
    fn new(note: fn(&str)) -> Self {
        Self {
            note,
            lines: Vec::new(),
            known: BTreeSet::new(),
            ended: BTreeSet::new(),
            notes: BTreeSet::new(),
            at_once: false,
            any: false,
        }
    }

    fn news(&mut self, reading: &Reading, t: Duration) {
        let name = |pid: u32| {
            let vm = reading.vms.get(&pid);
            let process = vm.map_or("?", |vm| vm.process.as_str());
            match vm.and_then(|vm| vm.name.as_deref()) {
                Some(name) => format!("process {pid} ({process}), VM {name}"),
                None => format!("process {pid} ({process})"),
            }
        };
        for &pid in reading.vms.keys().filter(|pid| !reading.ended.contains(pid)) {
            if self.known.insert(pid) {
                self.say(format!("{:.0} s: watching {}", t.as_secs_f64(), name(pid)));
            }
        }
        if !std::mem::replace(&mut self.any, true) && reading.vms.is_empty() {
            self.say("no process has a KVM VM yet: one that starts will show up".to_owned());
        }
        for &pid in &reading.ended {
            if self.known.contains(&pid) && self.ended.insert(pid) {
                self.say(format!("{:.0} s: {} has ended", t.as_secs_f64(), name(pid)));
            }
        }
        // A note with a number that grows is told once; what it says before anything ran may pass, so it waits a little.
        if t >= Duration::from_secs(1) {
            for note in &reading.notes {
                let words: String = note.chars().filter(|c| !c.is_ascii_digit()).collect();
                if self.notes.insert(words) {
                    self.say(note.clone());
                }
            }
        }
    }

    fn say(&mut self, line: String) {
        if self.at_once {
            (self.note)(&line);
        }
        self.lines.push(line);
    }

    fn tell_all(&self) {
        self.lines.iter().for_each(|line| (self.note)(line));
    }
}
