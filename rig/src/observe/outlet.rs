//! What everything that shows or keeps readings has in common.

use std::time::Duration;

use dirtyrig_probes::Event;

use super::{rates::VcpuRates, watched::Reading};

/// What happened in one interval.
#[derive(Clone, Debug)]
pub struct Report {
    /// Seconds since the probes were attached.
    pub t_s: f64,
    /// The reading at its end.
    pub reading: Reading,
    /// What each vCPU did.
    pub rates: Vec<VcpuRates>,
}

/// Takes in what is seen.
pub trait Outlet {
    /// An event, as soon as it was drained.
    fn event(&mut self, _event: &Event) -> anyhow::Result<()> {
        Ok(())
    }

    /// How often it wants readings, where those of the reports are too few.
    fn reads_every(&self) -> Option<Duration> {
        None
    }

    /// A reading: each report's, and those between two reports.
    fn reading(&mut self, _reading: &Reading) -> anyhow::Result<()> {
        Ok(())
    }

    /// An interval is over.
    fn report(&mut self, _report: &Report) -> anyhow::Result<()> {
        Ok(())
    }

    /// Nothing more will come. What it kept is whole after this; it returns what the user should be told.
    fn finish(self: Box<Self>, _last: &Reading) -> anyhow::Result<Option<String>> {
        Ok(None)
    }
}
