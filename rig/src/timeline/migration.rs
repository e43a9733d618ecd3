//! A migration on a timeline: its passes, the pauses of its vCPUs, what is left, and how fast it goes.

use std::time::Duration;

use super::{Timeline, writer::Row};
use crate::{
    migrate::{
        course::{Course, Pass},
        drive::{Now, Watch},
    },
    model::Stall,
};

/// Hands everything on to the watcher within, and shows it on a timeline if there is to be one. Timestamps count from the
/// start of the migration.
pub struct Migrating<'a> {
    within: &'a mut dyn Watch,
    timeline: Option<&'a mut Timeline>,
    process: u32,
    /// The pass that goes on.
    pass: Option<Pass>,
}

impl<'a> Migrating<'a> {
    /// Shows the migration that is called `title` on `timeline`, as its process number `process`.
    pub fn new(
        within: &'a mut dyn Watch,
        mut timeline: Option<&'a mut Timeline>,
        process: u32,
        title: &str,
    ) -> anyhow::Result<Self> {
        if let Some(timeline) = &mut timeline {
            timeline.process(process, title)?;
        }
        Ok(Self {
            within,
            timeline,
            process,
            pass: None,
        })
    }

    /// It ended so.
    pub fn end(mut self, course: &Course) -> anyhow::Result<()> {
        // The last pass goes on while the guest is away.
        self.end_pass(course.total)?;
        let row = self.row("guest");
        let Some(timeline) = self.timeline else {
            return Ok(());
        };
        if let (Some(at), Some(downtime)) = (course.stopped_at, course.qemu_downtime) {
            let figures = [("beside_ms", course.beside_downtime.as_secs_f64() * 1e3)];
            timeline.span(row, "away, by QEMU's figure", (at, downtime), &figures)?;
        }
        timeline.flush()
    }

    fn row(&self, what: &'static str) -> Row {
        Row {
            process: self.process,
            vcpu: None,
            what,
        }
    }

    fn end_pass(&mut self, at: Duration) -> anyhow::Result<()> {
        let row = self.row("passes");
        let (Some(pass), Some(timeline)) = (self.pass.take(), &mut self.timeline) else {
            return Ok(());
        };
        let mut figures = vec![("left_mib", pass.left_mib), ("sent_mib", pass.sent_mib)];
        figures.extend(pass.quota.map(|quota| ("quota_mib_s", quota.mib_per_sec())));
        figures.extend(pass.dirtied_pages.map(|pages| ("dirtied_pages", pages as f64)));
        let length = at.saturating_sub(pass.at);
        timeline.span(row, &format!("pass {}", pass.number), (pass.at, length), &figures)
    }
}

impl Watch for Migrating<'_> {
    fn pass(&mut self, pass: &Pass) -> anyhow::Result<()> {
        self.within.pass(pass)?;
        self.end_pass(pass.at)?;
        self.pass = Some(*pass);
        Ok(())
    }

    fn progress(&mut self, now: &Now) -> anyhow::Result<()> {
        self.within.progress(now)?;
        let counters = [
            ("left", "MiB", Some(now.left_mib)),
            ("sends", "MiB/s", now.rate.map(|rate| rate.0)),
            ("quota", "MiB/s", Some(now.quota.map_or(0.0, |quota| quota.0))),
        ];
        for (what, unit, value) in counters {
            let row = self.row(what);
            if let (Some(timeline), Some(value)) = (&mut self.timeline, value) {
                timeline.count(row, unit, now.at, value)?;
            }
        }
        self.timeline.as_mut().map_or(Ok(()), |timeline| timeline.flush())
    }

    fn pauses(&mut self, pauses: &[Stall]) -> anyhow::Result<()> {
        self.within.pauses(pauses)?;
        for pause in pauses {
            let row = Row {
                vcpu: Some(pause.vcpu as u32),
                ..self.row("pauses")
            };
            if let Some(timeline) = &mut self.timeline {
                timeline.pause(row, pause.at, pause)?;
            }
        }
        Ok(())
    }

    fn said(&mut self, text: &str) {
        self.within.said(text);
    }
}
