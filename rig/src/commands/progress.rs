//! How a run or a sweep is going, on stderr: a bar on a terminal, plain lines elsewhere.

use std::{
    collections::VecDeque,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::table::verdict;
use crate::{
    cli::output::note,
    engine::cell::Watch,
    recording::schema::{Sample, Summary},
    scenario::{End, SAMPLE_EVERY, Scenario, script::Event},
    sweep::{
        estimate::Estimate,
        execute::SweepWatch,
        plan::{Plan, PlannedCell},
    },
};

/// A rate on the screen is the mean of the samples of so many seconds.
const SHOWN_S: f64 = 1.0;

/// Rates of the last second, as one line.
#[derive(Debug, Default)]
struct Rates {
    recent: VecDeque<Vec<Sample>>,
}

impl Rates {
    fn push(&mut self, rows: &[Sample]) {
        self.recent.push_back(rows.to_vec());
        let time = |rows: &Vec<Sample>| rows.first().map_or(0.0, |row| row.t_s);
        let newest = self.recent.back().map_or(0.0, time);
        // A little less, so that a sample that came early doesn't stay one longer.
        while self
            .recent
            .front()
            .is_some_and(|oldest| newest - time(oldest) > 0.95 * SHOWN_S)
        {
            self.recent.pop_front();
        }
    }

    fn line(&self) -> String {
        let Some(newest) = self.recent.back() else {
            return String::new();
        };
        let t_s = newest.first().map_or(0.0, |row| row.t_s);
        let vcpus: Vec<String> = newest
            .iter()
            .enumerate()
            .map(|(vcpu, row)| self.vcpu(vcpu, row))
            .collect();
        format!("{t_s:6.1} s  {}", vcpus.join("  |  "))
    }

    fn vcpu(&self, vcpu: usize, newest: &Sample) -> String {
        let mean = |value: fn(&Sample) -> f64| {
            let values: Vec<f64> = self
                .recent
                .iter()
                .filter_map(|rows| rows.get(vcpu))
                .map(value)
                .collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let limit = match (newest.quota_mib_s, newest.vm_quota_mib_s) {
            (None, None) => "no limit".to_owned(),
            (Some(own), None) => format!("limit {own}"),
            (None, Some(vm)) => format!("limit {vm} for all"),
            (Some(own), Some(vm)) => format!("limit {own}, {vm} for all"),
        };
        format!(
            "vCPU {vcpu}: {limit}, reads {:.1}, truth {:.1} MiB/s, throttle {}, in guest {:.0} %",
            newest.ring_mib_s,
            mean(|row| row.guest_mib_s),
            pause(newest.throttle_us),
            mean(|row| row.utilisation_pct)
        )
    }
}

/// A throttle in the unit that suits it.
fn pause(micros: u64) -> String {
    match micros {
        0 => "none".to_owned(),
        _ if micros < 1000 => format!("{micros} us"),
        _ if micros < 1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// Shows a run.
pub(super) struct Live {
    rates: Rates,
    bar: Option<ProgressBar>,
    /// Whether to print lines where there is no terminal.
    lines: bool,
    /// Time of the last plain line, on the cell's clock.
    said_s: f64,
    warm_up: Duration,
}

impl Live {
    /// With a bar on a terminal and a line a second elsewhere.
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            lines: true,
            ..Self::quiet(scenario)
        }
    }

    /// With a bar on a terminal and nothing elsewhere.
    pub(super) fn quiet(scenario: &Scenario) -> Self {
        let total = scenario.warm_up + scenario.duration;
        let bar = std::io::stderr().is_terminal().then(|| {
            // Where no end is planned there is no way to it to be shown.
            let template = if scenario.end == End::WhenTold {
                "{wide_msg}"
            } else {
                "[{bar:20}] {wide_msg}"
            };
            let style = ProgressStyle::with_template(template).expect("the template is valid");
            ProgressBar::new(total.as_millis() as u64).with_style(style.progress_chars("=> "))
        });
        Self {
            rates: Rates::default(),
            bar,
            lines: false,
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
                bar.set_message(self.rates.line());
            }
            // A little early rather than one sample late.
            None if self.lines && t_s - self.said_s >= 1.0 - SAMPLE_EVERY.as_secs_f64() / 2.0 => {
                self.said_s = t_s;
                note(self.rates.line());
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
            bar.set_message(format!("{}: {}", self.title, self.rates.line().trim_start()));
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
        let rates: Vec<String> = summaries
            .iter()
            .map(|row| {
                format!(
                    "{}, reads {:.1}, truth {:.1} MiB/s",
                    verdict(row.verdict),
                    row.ring_median_mib_s,
                    row.guest_mib_s
                )
            })
            .collect();
        self.say(&format!(
            "[{}/{}] {}: {} ({:.0} s)",
            self.done,
            self.total,
            self.title,
            rates.join("; "),
            self.began.elapsed().as_secs_f64()
        ));
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
        }
    }
}
