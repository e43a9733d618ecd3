//! What the figures of one recording are drawn from, read from its folder.

use super::{RecordingView, Stalls, machine_line};
use crate::{
    model::{Sample, Summary},
    recording::{Recording, RecordingError},
};

/// Owns what a [`RecordingView`] borrows.
pub struct Source {
    title: String,
    machine: String,
    samples: Vec<Sample>,
    summaries: Vec<Summary>,
    stalls: Vec<Stalls>,
}

impl Source {
    /// Reads the stalls of `recording`, and takes its samples, those of unfinished cells too.
    pub fn of(recording: &Recording, title: &str) -> Result<Self, RecordingError> {
        Ok(Self {
            title: title.to_owned(),
            machine: machine_line(&recording.manifest.machine),
            samples: [recording.samples.as_slice(), recording.unfinished.as_slice()].concat(),
            summaries: recording.summaries.clone(),
            stalls: Stalls::of(recording.stalls()?),
        })
    }

    /// To draw from.
    pub fn view(&self) -> RecordingView<'_> {
        RecordingView {
            title: &self.title,
            machine: &self.machine,
            samples: &self.samples,
            summaries: &self.summaries,
            stalls: &self.stalls,
        }
    }
}
