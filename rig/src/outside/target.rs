//! A VM that is held from outside, as a target: recorded, drawn and scripted as any other.

use std::{fs, sync::Arc, time::Duration};

use dirtyrig_probes::identity::process_name;

use super::{End, Limiter};
use crate::{
    engine::{
        interrupt::Interrupt,
        limits::Limits,
        target::{Target, VcpuSnapshot},
    },
    model::Stall,
};

/// A VM of another process, under a [`Limiter`].
pub struct OutsideTarget {
    limiter: Arc<Limiter>,
    name: String,
    /// Is told what goes on although something isn't as it should be.
    note: fn(&str),
    /// Set when the VM ends: what was recorded of it is kept.
    interrupt: Interrupt,
    /// By number; of numbers that no vCPU has had, absent.
    last: Vec<VcpuSnapshot>,
}

impl OutsideTarget {
    /// Records the vCPUs that `limiter` has found; `interrupt` is set when the VM ends, and
    /// `note` told what is not as it should be.
    pub fn new(limiter: Arc<Limiter>, interrupt: Interrupt, note: fn(&str)) -> Self {
        Self {
            name: process_name(limiter.process()).unwrap_or_else(|| "unknown".to_owned()),
            limiter,
            note,
            interrupt,
            last: Vec::new(),
        }
    }

    /// Time that a thread has spent on a CPU: in the guest, but for what its VMM does on it.
    fn on_cpu(&self, thread: u32) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/task/{thread}/schedstat", self.limiter.process())).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }
}

impl Target for OutsideTarget {
    fn vmm(&self) -> &str {
        &self.name
    }

    fn now(&self) -> Duration {
        self.limiter.now()
    }

    fn max_vcpus(&self) -> usize {
        self.limiter.books().last().map_or(0, |(vcpu, _)| vcpu + 1)
    }

    fn runs_our_guest(&self) -> bool {
        false
    }

    fn snapshot(&mut self) -> anyhow::Result<Vec<VcpuSnapshot>> {
        match self.limiter.end() {
            None => {}
            Some(End::Gone) => {
                self.interrupt.set();
                return Ok(self.last.clone());
            }
            Some(End::Failed(why)) => anyhow::bail!("the VM could not be limited any longer, and runs free: {why}"),
        }
        for fault in self.limiter.take_faults() {
            (self.note)(&fault.to_string());
        }
        for (vcpu, book) in self.limiter.books() {
            let on_cpu = self.on_cpu(book.thread);
            if self.last.len() <= vcpu {
                self.last.resize(vcpu + 1, VcpuSnapshot::ABSENT);
            }
            let last = &mut self.last[vcpu];
            *last = VcpuSnapshot {
                plugged: book.plugged,
                harvested_pages: Some(book.pages),
                // A thread that was replaced starts to count anew; one that has ended keeps what it had.
                in_guest: on_cpu.max(last.in_guest),
                asked: Some(book.asked),
                slept: Some(book.stopped),
                throttle: Some(book.last_asked),
                ..VcpuSnapshot::default()
            };
        }
        Ok(self.last.clone())
    }

    fn take_stalls(&mut self) -> Vec<Stall> {
        self.limiter.take_stalls()
    }

    fn limits(&self) -> Box<dyn Limits + '_> {
        Box::new(&*self.limiter)
    }

    fn plug(&mut self, _: usize) -> anyhow::Result<()> {
        anyhow::bail!("a VM that is limited from outside can't be told to plug a vCPU: ask its VMM")
    }

    fn unplug(&mut self, _: usize) -> anyhow::Result<()> {
        anyhow::bail!("a VM that is limited from outside can't be told to unplug a vCPU: ask its VMM")
    }

    fn stop(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
