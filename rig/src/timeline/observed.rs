//! What `observe` sees, on a timeline.

use std::time::Duration;

use dirtyrig_probes::{Event, StallCause, VcpuId};

use super::{Timeline, writer::Row};
use crate::observe::{
    outlet::{Outlet, Report},
    watched::Reading,
};

/// Shows stalls and rates of all VMs that are watched.
pub struct Observed {
    timeline: Timeline,
    begun: Option<Duration>,
}

impl Observed {
    /// Shows them on `timeline`.
    pub fn on(timeline: Timeline) -> Self {
        Self { timeline, begun: None }
    }
}

/// What a vCPU is called: by the VMM's index, KVM's id, or its thread, whichever is known first.
fn number(vcpu: Option<VcpuId>, thread: u32) -> u32 {
    vcpu.and_then(|vcpu| vcpu.index.or(vcpu.kvm_id())).unwrap_or(thread)
}

impl Outlet for Observed {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        // One that began before the first reading has no place on the timeline.
        let (Event::Stall(stall), Some(begun)) = (event, self.begun) else {
            return Ok(());
        };
        let Some(at) = stall.exit_at.checked_sub(begun) else {
            return Ok(());
        };
        let name = match stall.cause {
            StallCause::RingFull => "ring full",
            StallCause::Interrupted => "interrupted",
        };
        let row = Row {
            process: stall.process,
            vcpu: Some(number(stall.vcpu, stall.thread)),
            what: "stalls",
        };
        self.timeline.span(row, name, (at, stall.length()), &[])
    }

    fn reading(&mut self, reading: &Reading) -> anyhow::Result<()> {
        self.begun.get_or_insert(reading.at);
        for (&pid, vm) in &reading.vms {
            self.timeline.process(pid, vm.name.as_deref().unwrap_or(&vm.process))?;
        }
        Ok(())
    }

    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let begun = *self.begun.get_or_insert(report.reading.at);
        let at = report.reading.at.saturating_sub(begun);
        for rates in &report.rates {
            let row = Row {
                process: rates.counters.process,
                vcpu: Some(number(rates.counters.vcpu, rates.counters.thread)),
                what: "dirties",
            };
            if let Some(rate) = rates.dirty_mib_s {
                self.timeline.count(row, "MiB/s", at, rate)?;
            }
        }
        self.timeline.flush()
    }

    fn finish(mut self: Box<Self>, _: &Reading) -> anyhow::Result<Option<String>> {
        self.timeline.flush()?;
        Ok(None)
    }
}
