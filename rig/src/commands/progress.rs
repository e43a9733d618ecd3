//! How a run or a sweep is going, on stderr: a bar on a terminal, plain lines elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    rates::Rates,
    table::{or_dash, verdict},
};
use crate::{
    commands::output::note,
    engine::cell::Watch,
    model::{Sample, Summary, Verdict},
    scenario::{End, SAMPLE_EVERY, Scenario, script::Event},
    sweep::{
        estimate::Estimate,
        execute::SweepWatch,
        plan::{Plan, PlannedCell},
    },
};

/// How wide the terminal is; `None` where there is none.
fn width() -> Option<usize> {
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    Some(usize::from(columns)).filter(|&columns| columns > 0)
}

/// What the bar takes of a line, with what stands around it.
const BAR: usize = 23;

/// Shows a run.
pub(super) struct Live {
    rates: Rates,
    bar: Option<ProgressBar>,
    /// Whether to print lines where there is no terminal.
    lines: bool,
    /// What of a line is left to the rates.
    taken: usize,
    /// Time of the last plain line, on the cell's clock.
    said_s: f64,
    warm_up: Duration,
}

impl Live {
    /// With a bar on a terminal and a line per second elsewhere.
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            lines: true,
            ..Self::quiet(scenario)
        }
    }

    /// With a bar on a terminal and nothing elsewhere.
    pub(super) fn quiet(scenario: &Scenario) -> Self {
        let total = scenario.warm_up + scenario.duration;
        // Where no end is planned there is no way to it to be shown.
        let (template, taken) = if scenario.end == End::WhenTold {
            ("{wide_msg}", 0)
        } else {
            ("[{bar:20}] {wide_msg}", BAR)
        };
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template).expect("the template is valid");
            ProgressBar::new(total.as_millis() as u64).with_style(style.progress_chars("=> "))
        });
        Self {
            rates: Rates::default(),
            bar,
            lines: false,
            taken,
            said_s: f64::NEG_INFINITY,
            warm_up: scenario.warm_up,
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Live {
    fn sampled(&mut self, rows: &[Sample]) {
        self.rates.push(rows);
        let t_s = rows.first().map_or(0.0, |row| row.t_s);
        match &self.bar {
            Some(bar) => {
                bar.set_position(((t_s + self.warm_up.as_secs_f64()) * 1000.0).max(0.0) as u64);
                bar.set_message(self.rates.line(width().map(|width| width.saturating_sub(self.taken))));
            }
            // A little early rather than one sample late.
            None if self.lines && t_s - self.said_s >= 1.0 - SAMPLE_EVERY.as_secs_f64() / 2.0 => {
                self.said_s = t_s;
                note(self.rates.line(None));
            }
            None => {}
        }
    }

    fn changed(&mut self, event: Event) {
        match &self.bar {
            Some(bar) => bar.println(event.to_string()),
            None if self.lines => note(event),
            None => {}
        }
    }
}

/// Shows a sweep.
pub(super) struct SweepProgress {
    rates: Rates,
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    began: Instant,
    title: String,
    /// What each cell was expected to take, of those that are still to come.
    left: VecDeque<Estimate>,
}

impl SweepProgress {
    /// For the cells of `plan` that `is_finished` does not know.
    pub(super) fn new(plan: &Plan, left: VecDeque<Estimate>) -> Self {
        let total = plan.cells.len();
        let done = total - left.len();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("[{bar:20}] {pos}/{len} {prefix}\n  {wide_msg}")
                .expect("the template is valid");
            ProgressBar::new(total as u64)
                .with_position(done as u64)
                .with_style(style.progress_chars("=> "))
        });
        Self {
            rates: Rates::default(),
            bar,
            total,
            done,
            began: Instant::now(),
            title: String::new(),
            left,
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => note(line),
        }
    }
}

impl Watch for SweepProgress {
    fn sampled(&mut self, rows: &[Sample]) {
        self.rates.push(rows);
        if let Some(bar) = &self.bar {
            // Two blanks before the title, a colon and a blank after it.
            let room = width().map(|width| width.saturating_sub(self.title.chars().count() + 4));
            bar.set_message(format!("{}: {}", self.title, self.rates.line(room).trim_start()));
        }
    }

    fn changed(&mut self, _: Event) {}
}

impl SweepWatch for SweepProgress {
    fn began(&mut self, cell: &PlannedCell, _: &Scenario) {
        self.rates = Rates::default();
        self.began = Instant::now();
        self.title = cell.title();
        let left: Estimate = self.left.iter().copied().sum();
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{left} left"));
            bar.set_message(self.title.clone());
        }
    }

    fn disturbed(&mut self, _: &PlannedCell, reason: &str, again: bool) {
        let then = if again { "run again" } else { "kept, and marked" };
        self.say(&format!("disturbed: {}: {reason}; {then}", self.title));
    }

    fn finished(&mut self, _: &PlannedCell, summaries: &[Summary]) {
        self.left.pop_front();
        self.done += 1;
        self.say(&format!(
            "[{}/{}] {}: {} ({:.0} s)",
            self.done,
            self.total,
            self.title,
            outcome(summaries),
            self.began.elapsed().as_secs_f64()
        ));
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
        }
    }
}

/// So many vCPUs of a cell are told each.
const EACH: usize = 4;

/// What came out of a cell: of each of a few vCPUs, of many how many of each verdict, and their sums.
fn outcome(summaries: &[Summary]) -> String {
    let rates = |reads: Option<f64>, truth: Option<f64>| {
        let rate = |rate: f64| format!("{rate:.1}");
        format!("reads {}, truth {} MiB/s", or_dash(reads, rate), or_dash(truth, rate))
    };
    if summaries.len() <= EACH {
        let each: Vec<String> = summaries
            .iter()
            .map(|row| {
                format!(
                    "{}, {}",
                    verdict(row.verdict),
                    rates(row.ring_median_mib_s, row.guest_mib_s)
                )
            })
            .collect();
        return each.join("; ");
    }
    let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for row in summaries {
        *verdicts.entry(row.verdict).or_default() += 1;
    }
    let counts: Vec<String> = verdicts
        .iter()
        .map(|(found, count)| format!("{count} {}", verdict(*found)))
        .collect();
    let sum = |of: fn(&Summary) -> Option<f64>| summaries.iter().map(of).sum::<Option<f64>>();
    let sums = rates(sum(|row| row.ring_median_mib_s), sum(|row| row.guest_mib_s));
    format!("{} of {} vCPUs, {sums} in all", counts.join(", "), summaries.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_many_vcpus_is_one_short_line() {
        let row = |verdict, guest_mib_s| Summary {
            verdict,
            guest_mib_s,
            ring_median_mib_s: Some(2.0),
            ..Summary::default()
        };
        let mut rows = vec![row(Verdict::Held, Some(2.0)); 62];
        rows.extend([row(Verdict::Missed, Some(3.0)), row(Verdict::Missed, Some(1.0))]);
        assert_eq!(
            outcome(&rows),
            "62 held, 2 missed of 64 vCPUs, reads 128.0, truth 128.0 MiB/s in all"
        );
        let one = row(Verdict::Unknown, None);
        assert_eq!(outcome(&[one]), "unknown, reads 2.0, truth - MiB/s");
    }
}
