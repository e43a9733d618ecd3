//! The live view: two lines per vCPU on a terminal, redrawn at each report.

mod screen;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};

use super::{outlet::Report, stdout};

/// Rates that are remembered of each vCPU: as many as the widest screen shows.
const REMEMBERED: usize = 200;

const KEYS: &str = "can't read the terminal's keys";

/// The terminal, in raw mode on its alternate screen until this is dropped.
pub struct View {
    /// Until this is dropped.
    terminal: Option<DefaultTerminal>,
    shown: Shown,
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Shown {
    report: Option<Report>,
    notes: Vec<String>,
    /// The rates of each thread, newest last.
    history: HashMap<u32, VecDeque<f64>>,
    /// Lines scrolled down.
    scrolled: usize,
}

impl View {
    /// Takes the terminal.
    pub fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().context("can't draw on this terminal: use --csv or --json")?;
        let mut view = Self {
            terminal: Some(terminal),
            shown: Shown::default(),
        };
        view.draw()?;
        Ok(view)
    }

    /// Shows a report.
    pub fn report(&mut self, report: &Report, notes: &[String]) -> anyhow::Result<()> {
        self.shown.take(report, notes);
        self.draw()
    }

    /// Answers keys until `until`, or the terminal has gone; says whether the user wants it to end.
    pub fn wait(&mut self, until: Instant) -> anyhow::Result<bool> {
        // crossterm reads a terminal that has gone for ever, so it is asked only while there is one.
        while !stdout::has_gone() {
            if !event::poll(Duration::ZERO).context(KEYS)? {
                let left = until.saturating_duration_since(Instant::now());
                if stdout::wait_for_input(left).context(KEYS)? {
                    continue;
                }
                return Ok(false);
            }
            match event::read().context(KEYS)? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
                    KeyCode::Up => self.shown.scrolled = self.shown.scrolled.saturating_sub(1),
                    KeyCode::Down => self.shown.scrolled += 1,
                    KeyCode::Home => self.shown.scrolled = 0,
                    _ => continue,
                },
                Event::Resize(..) => {}
                _ => continue,
            }
            self.draw()?;
        }
        Ok(false)
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let shown = &mut self.shown;
        if let Some(terminal) = &mut self.terminal {
            let drawn = terminal.draw(|frame| screen::draw(frame, shown));
            drawn.context("can't draw on the terminal")?;
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let terminal = self.terminal.take();
        if stdout::has_gone() {
            // There is nothing to give back, and ratatui would panic as it says so on a stderr that has gone as well.
            mem::forget(terminal);
        } else {
            drop(terminal);
            ratatui::restore();
        }
    }
}

impl Shown {
    fn take(&mut self, report: &Report, notes: &[String]) {
        let current = |thread: &u32| report.rates.iter().any(|vcpu| vcpu.counters.thread == *thread);
        self.history.retain(|thread, _| current(thread));
        for vcpu in &report.rates {
            let rates = self.history.entry(vcpu.counters.thread).or_default();
            rates.push_back(vcpu.dirty_mib_s.unwrap_or_default());
            if rates.len() > REMEMBERED {
                rates.pop_front();
            }
        }
        self.report = Some(report.clone());
        self.notes = notes.to_vec();
    }
}
