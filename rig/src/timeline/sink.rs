//! A cell that is recorded and shown on a timeline at once.

use std::{ops::Range, time::Duration};

use super::{Timeline, writer::Row};
use crate::{
    engine::cell::Sink,
    model::{ExitRow, KernelStall, Sample, Stall},
};

/// The cell's one process, which has no number of its own here.
const PROCESS: u32 = 1;

/// Hands everything on to the sink within, and shows it on a timeline if there is to be one.
pub struct WithTimeline<'a> {
    within: &'a mut dyn Sink,
    timeline: Option<Timeline>,
    /// The first sample on the cell's clock, in seconds: what the timeline begins with.
    begin_s: Option<f64>,
}

impl<'a> WithTimeline<'a> {
    /// Shows the cell, which is called `title`, on `timeline`.
    pub fn new(within: &'a mut dyn Sink, mut timeline: Option<Timeline>, title: &str) -> anyhow::Result<Self> {
        if let Some(timeline) = &mut timeline {
            timeline.process(PROCESS, title)?;
        }
        Ok(Self {
            within,
            timeline,
            begin_s: None,
        })
    }

    /// Where a time on the cell's clock lies on the timeline.
    fn place(&self, t_s: f64) -> Duration {
        Duration::try_from_secs_f64(t_s - self.begin_s.unwrap_or(0.0)).unwrap_or_default()
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn row(vcpu: u32, what: &'static str) -> Row {
    Row {
        process: PROCESS,
        vcpu: Some(vcpu),
        what,
    }
}

impl Sink for WithTimeline<'_> {
    fn samples(&mut self, rows: &[Sample]) -> anyhow::Result<()> {
        self.within.samples(rows)?;
        if let Some(first) = rows.first() {
            self.begin_s.get_or_insert(first.t_s);
        }
        for sample in rows {
            let at = self.place(sample.t_s);
            let Some(timeline) = &mut self.timeline else {
                break;
            };
            for (what, value) in [
                ("limit", Some(sample.quota_mib_s.unwrap_or(0.0))),
                ("ring reading", sample.ring_mib_s),
                ("guest", sample.guest_mib_s),
            ] {
                if let Some(value) = value {
                    timeline.count(row(sample.vcpu, what), "MiB/s", at, value)?;
                }
            }
        }
        Ok(())
    }

    fn stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[Stall]) -> anyhow::Result<()> {
        self.within.stalls(cell, interval, stalls)?;
        for stall in stalls {
            let at = self.place(stall.at.as_secs_f64());
            if let Some(timeline) = &mut self.timeline {
                timeline.pause(row(stall.vcpu as u32, "pauses"), at, stall)?;
            }
        }
        self.timeline.as_mut().map_or(Ok(()), Timeline::flush)
    }

    fn kernel_stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[KernelStall]) -> anyhow::Result<()> {
        self.within.kernel_stalls(cell, interval, stalls)?;
        for stall in stalls {
            let at = self.place(stall.at.as_secs_f64());
            let figures: Vec<(&str, f64)> = stall
                .overhead()
                .map(|overhead| ("overhead_us", micros(overhead)))
                .into_iter()
                .collect();
            if let Some(timeline) = &mut self.timeline {
                let row = row(stall.vcpu as u32, "stalls, by the kernel");
                timeline.span(row, "stall", (at, stall.length), &figures)?;
            }
        }
        self.timeline.as_mut().map_or(Ok(()), Timeline::flush)
    }

    fn exits(&mut self, rows: &[ExitRow]) -> anyhow::Result<()> {
        self.within.exits(rows)
    }
}
