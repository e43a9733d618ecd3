//! A VM that is held from outside, as a target: recorded, drawn and scripted as any other.

use std::{fs, sync::Arc, time::Duration};

use dirtyrig_limiter::{
    limit::{LimitInfo, Which},
    units::Quota,
};

use super::{End, Limiter};
use crate::{
    cli::output::note,
    engine::{
        interrupt::Interrupt,
        target::{Stall, Target, VcpuSnapshot},
    },
};

/// A VM of another process, under a [`Limiter`].
pub struct OutsideTarget {
    limiter: Arc<Limiter>,
    name: String,
    vcpus: usize,
    /// Set when the VM ends: what was recorded of it is kept.
    interrupt: Interrupt,
    /// When a vCPU comes later it is limited, but has no row: a recording has as many as it began with.
    last: Vec<VcpuSnapshot>,
}

impl OutsideTarget {
    /// Records the vCPUs that `limiter` has found; `interrupt` is set when the VM ends.
    pub fn new(limiter: Arc<Limiter>, interrupt: Interrupt) -> Self {
        let vcpus = limiter.books().last().map_or(0, |(vcpu, _)| vcpu + 1);
        let command = fs::read_to_string(format!("/proc/{}/comm", limiter.process()));
        Self {
            name: command.map_or_else(|_| "unknown".to_owned(), |name| name.trim_end().to_owned()),
            limiter,
            vcpus,
            interrupt,
            last: vec![VcpuSnapshot::default(); vcpus],
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
        self.vcpus
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
        self.limiter
            .take_faults()
            .iter()
            .for_each(|fault| note(format_args!("warning: {fault}")));
        for (vcpu, book) in self.limiter.books() {
            let on_cpu = self.on_cpu(book.thread);
            let Some(last) = self.last.get_mut(vcpu) else { continue };
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
        let mut stalls = self.limiter.take_stalls();
        stalls.retain(|stall| stall.vcpu < self.vcpus);
        stalls
    }

    fn set_limit(&mut self, which: Which, quota: Quota) -> anyhow::Result<()> {
        Ok(self.limiter.set(which, quota)?)
    }

    fn cancel_limit(&mut self, which: Which) -> anyhow::Result<()> {
        Ok(self.limiter.cancel(which)?)
    }

    fn set_vm_limit(&mut self, quota: Quota) -> anyhow::Result<()> {
        Ok(self.limiter.set_vm(quota)?)
    }

    fn cancel_vm_limit(&mut self) -> anyhow::Result<()> {
        Ok(self.limiter.cancel_vm()?)
    }

    fn set_burst(&mut self, burst: Duration) -> anyhow::Result<()> {
        Ok(self.limiter.set_burst(burst)?)
    }

    fn vm_quota(&self) -> Option<Quota> {
        self.limiter.vm_quota()
    }

    fn query(&mut self) -> anyhow::Result<Vec<LimitInfo>> {
        let mut limits = self.limiter.query();
        limits.retain(|limit| limit.vcpu < self.vcpus);
        Ok(limits)
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
