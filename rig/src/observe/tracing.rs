//! Keeps every dirtied page in a trace.

use std::{path::Path, time::Duration};

use dirtyrig_probes::{Event, identity::vm_of, monotonic_now};

use super::{
    outlet::{Outlet, Report},
    processes,
    watched::Reading,
};
use crate::trace::{Head, Writer};

/// A trace of one process.
#[derive(Debug)]
pub struct Tracing {
    writer: Writer,
    path: String,
    started: Duration,
}

impl Tracing {
    /// Begins a trace of `pid` in a file that must not exist.
    pub fn begin(path: &Path, pid: u32) -> anyhow::Result<Self> {
        let started = monotonic_now();
        let head = Head {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid,
            process: vm_of(pid).process,
            vcpus: processes::vcpus(pid),
            started_utc: jiff::Timestamp::now().to_string(),
            started_ns: started.as_nanos() as u64,
        };
        Ok(Self {
            writer: Writer::create(path, &head)?,
            path: path.display().to_string(),
            started,
        })
    }
}

impl Outlet for Tracing {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if let Event::Push(push) = event
            && push.at >= self.started
        {
            self.writer.push(push)?;
        }
        Ok(())
    }

    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        Ok(self.writer.flush(report.reading.lost.pushes)?)
    }

    fn finish(self: Box<Self>, end: &Reading) -> anyhow::Result<Option<String>> {
        let Self { writer, path, .. } = *self;
        let done = writer.finish(end.lost.pushes, end.at)?;
        let tail = done.tail;
        let a_write = if tail.writes > 0 {
            format!(", {:.1} bytes a page", done.bytes as f64 / tail.writes as f64)
        } else {
            String::new()
        };
        let lost = if tail.lost > 0 {
            format!("; {} more were lost", tail.lost)
        } else {
            String::new()
        };
        Ok(Some(format!(
            "trace: {} pages of {} vCPUs in {path}, {} KiB{a_write}{lost}",
            tail.writes,
            tail.vcpus.len(),
            done.bytes / 1024,
        )))
    }
}
