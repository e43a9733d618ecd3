//! Where the rows of a cell can go.

use std::{ops::Range, time::Duration};

use super::cell::Sink;
use crate::{
    model::{ExitRow, KernelStall, Sample, Stall},
    recording::Recorder,
};

impl Sink for Recorder {
    fn samples(&mut self, rows: &[Sample]) -> anyhow::Result<()> {
        Ok(self.append_samples(rows)?)
    }

    fn stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[Stall]) -> anyhow::Result<()> {
        Ok(self.append_stalls(cell, interval, stalls)?)
    }

    fn kernel_stalls(&mut self, cell: u32, interval: &Range<Duration>, stalls: &[KernelStall]) -> anyhow::Result<()> {
        Ok(self.append_kernel_stalls(cell, interval, stalls)?)
    }

    fn exits(&mut self, rows: &[ExitRow]) -> anyhow::Result<()> {
        Ok(self.append_exits(rows)?)
    }
}

/// Keeps nothing: for cells that are only asked one question, as in calibration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn samples(&mut self, _: &[Sample]) -> anyhow::Result<()> {
        Ok(())
    }

    fn stalls(&mut self, _: u32, _: &Range<Duration>, _: &[Stall]) -> anyhow::Result<()> {
        Ok(())
    }

    fn kernel_stalls(&mut self, _: u32, _: &Range<Duration>, _: &[KernelStall]) -> anyhow::Result<()> {
        Ok(())
    }

    fn exits(&mut self, _: &[ExitRow]) -> anyhow::Result<()> {
        Ok(())
    }
}
