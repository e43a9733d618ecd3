//! A migration as it goes: a line on a terminal, a line per pass elsewhere, and a row per pass in the recording.

use std::{io::IsTerminal as _, time::Duration};

use dirtyrig_limiter::units::Quota;
use indicatif::ProgressBar;

use crate::{
    commands::output::note,
    migrate::{
        course::Pass,
        drive::{Now, Watch},
        promise::Promise,
        rows,
    },
    recording::migrations::MigrationRecorder,
};

/// Who shows and records it.
pub(super) struct Live<'a> {
    recorder: &'a mut MigrationRecorder,
    cell: u32,
    promise: Promise,
    bar: Option<ProgressBar>,
}

impl<'a> Live<'a> {
    pub(super) fn new(recorder: &'a mut MigrationRecorder, cell: u32, promise: Promise) -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        Self {
            recorder,
            cell,
            promise,
            bar,
        }
    }

    /// The line goes.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    fn line(&self, now: &Now) -> String {
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1} MiB/s"));
        let end = |end: Option<Duration>| end.map_or("-".to_owned(), |end| format!("{:.1} s", end.as_secs_f64()));
        format!(
            "{:6.1} s  pass {}: {:.1} MiB left, sends {}, quota {}, expected end {}, promised {}",
            now.at.as_secs_f64(),
            now.pass,
            now.left_mib,
            rate(now.rate.map(|rate| rate.0)),
            now.quota
                .map_or("none".to_owned(), |quota| format!("{:.1} MiB/s", quota.0)),
            end(now.expected_end),
            end(Some(self.promise.within)),
        )
    }
}

impl Watch for Live<'_> {
    fn pass(&mut self, pass: &Pass) -> anyhow::Result<()> {
        self.recorder.append_pass(&rows::of_pass(self.cell, pass))?;
        if self.bar.is_none() {
            note(self.line(&Now {
                at: pass.at,
                pass: pass.number,
                left_mib: pass.left_mib,
                rate: pass.rate,
                quota: pass.quota.map(Quota::rate),
                expected_end: pass.expected_end,
            }));
        }
        Ok(())
    }

    fn progress(&mut self, now: &Now) -> anyhow::Result<()> {
        if let Some(bar) = &self.bar {
            bar.set_message(self.line(now));
            bar.tick();
        }
        Ok(())
    }

    fn said(&mut self, text: &str) {
        self.say(text);
    }
}
