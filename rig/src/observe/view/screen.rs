//! What the screen says.

use std::{collections::VecDeque, time::Duration};

use dirtyrig_probes::identity::{NumberKind, Vm};
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Style, Stylize as _},
    symbols::bar,
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Wrap},
};

use super::{
    super::{
        outlet::Report,
        rates::{StallFigures, VcpuRates},
    },
    Shown,
};

/// Lines for what must be known to read the figures.
const NOTE_LINES: u16 = 6;
/// Columns before the sparkline.
const FIXED: usize = 66;

pub(super) fn draw(frame: &mut Frame<'_>, shown: &mut Shown) {
    let [title, head, body, notes] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(NOTE_LINES),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(title_line(shown.report.as_ref())), title);
    frame.render_widget(Paragraph::new(head_line()), head);
    let lines = shown.report.as_ref().map_or_else(
        || vec![Line::from("attached; the first figures come with the first interval").dim()],
        |report| lines(report, shown, usize::from(body.width)),
    );
    shown.scrolled = shown.scrolled.min(lines.len().saturating_sub(usize::from(body.height)));
    let hidden = lines.len().saturating_sub(shown.scrolled + usize::from(body.height));
    frame.render_widget(Paragraph::new(lines).scroll((shown.scrolled as u16, 0)), body);
    let more = if hidden > 0 || shown.scrolled > 0 {
        format!(" {} lines above, {hidden} below (up, down) ", shown.scrolled)
    } else {
        String::new()
    };
    let block = Block::new().borders(Borders::TOP).dim().title(more);
    let text: Vec<Line<'_>> = shown.notes.iter().rev().map(|note| Line::from(note.as_str())).collect();
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(block), notes);
}

fn title_line(report: Option<&Report>) -> Line<'static> {
    let mut spans = vec![Span::from("dirtyrig observe").bold()];
    if let Some(report) = report {
        let running = report.rates.iter().filter(|vcpu| !vcpu.counters.gone);
        let all: f64 = report.rates.iter().filter_map(|vcpu| vcpu.dirty_mib_s).sum();
        spans.push(
            format!(
                "  {:.0} s  {} vCPUs  {} MiB/s in all  ",
                report.t_s,
                running.count(),
                number(all)
            )
            .into(),
        );
        let lost = report.reading.lost.total();
        spans.push(if lost > 0 {
            format!("{lost} records lost").red().bold()
        } else {
            "nothing lost".into()
        });
    }
    spans.push("  q: quit".dim());
    Line::from(spans)
}

fn head_line() -> Line<'static> {
    // "by": what the stalls shown came from; of the two causes the one that took more time.
    let head = format!(
        "{:>5}{:>9}{:>8}{:>10}{:>8}{:>8} {:<5}{:>8}{:>5} {}",
        "vCPU", "MiB/s", "full/s", "stall p50", "p99", "max", "by", "stalled", "run", "rate"
    );
    Line::from(head).reversed()
}

fn lines(report: &Report, shown: &Shown, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (pid, vm) in &report.reading.vms {
        let mut own: Vec<&VcpuRates> = report
            .rates
            .iter()
            .filter(|vcpu| vcpu.counters.process == *pid)
            .collect();
        own.retain(|vcpu| !vcpu.counters.gone || report.reading.ended.contains(pid));
        let state = if report.reading.ended.contains(pid) {
            "has ended".red()
        } else if own.is_empty() {
            "no event yet: its vCPUs have neither left KVM_RUN nor dirtied a page".dim()
        } else if report.reading.sees.hardware_exits {
            "".into()
        } else {
            "returns of KVM_RUN alone: this host's KVM reports no other exits".dim()
        };
        lines.push(Line::from(vec![
            title(vm).bold(),
            numbers_line(report.reading.numbers(*pid)).into(),
            state,
        ]));
        for vcpu in own {
            let rates = shown.history.get(&vcpu.counters.thread);
            lines.push(numbers(vcpu, rates, width));
            lines.push(exits(vcpu));
        }
    }
    lines
}

/// `web01  4711 qemu-system-x86  `, and the UUID where there is no name.
fn title(vm: &Vm) -> String {
    let name = vm.name.as_ref().or(vm.uuid.as_ref());
    let name = name.map(|name| format!("{name}  ")).unwrap_or_default();
    let uuid = vm.uuid.as_ref().filter(|_| vm.name.is_some());
    let uuid = uuid.map(|uuid| format!("{uuid}  ")).unwrap_or_default();
    format!("{name}{uuid}{} {}  ", vm.pid, vm.process)
}

/// What the numbers of its vCPUs are, where two kinds of them differ.
fn numbers_line(numbers: Option<(NumberKind, Vec<u32>)>) -> String {
    match numbers {
        Some((kind, ids)) if !ids.is_empty() => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            format!("by {kind} (KVM's ids: {})  ", ids.join(" "))
        }
        Some((kind @ NumberKind::KvmId, _)) => format!("by {kind}  "),
        _ => String::new(),
    }
}

fn numbers(vcpu: &VcpuRates, history: Option<&VecDeque<f64>>, width: usize) -> Line<'static> {
    let name = vcpu
        .counters
        .number
        .map_or_else(|| "?".to_owned(), |number| number.value.to_string());
    let [ring, other] = vcpu.steady;
    let (stalls, by) = if other.total > ring.total {
        (other, "kick")
    } else {
        (ring, "ring")
    };
    let by = if stalls.count == 0 { "" } else { by };
    let StallFigures { p50, p99, max, .. } = stalls;
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.0}%"));
    let stalled = vcpu.stalled_pct.unwrap_or_default();
    let style = if vcpu.counters.gone {
        Style::new().dim()
    } else {
        Style::new()
    };
    let fixed = format!(
        "{name:>5}{:>9}{:>8}{:>10}{:>8}{:>8} {by:<5}",
        known(vcpu.dirty_mib_s),
        known(vcpu.ring_full_per_s),
        length(p50),
        length(p99),
        length(max),
    );
    let stalled_share = format!("{:>8}", share(vcpu.stalled_pct));
    Line::from(vec![
        fixed.into(),
        if stalled >= 50.0 {
            stalled_share.yellow()
        } else {
            stalled_share.into()
        },
        format!("{:>5} ", share(vcpu.in_run_pct)).into(),
        sparkline(history, width.saturating_sub(FIXED + 2)).cyan(),
    ])
    .style(style)
}

/// Why it exits.
fn exits(vcpu: &VcpuRates) -> Line<'static> {
    let top = vcpu.exits.iter().take(4).map(|exit| {
        let name = exit.name.strip_prefix("KVM_EXIT_").unwrap_or(&exit.name);
        format!("{name} {}/s", number(exit.per_s))
    });
    let mut top: Vec<String> = top.collect();
    if top.is_empty() {
        top.push("no exits".to_owned());
    }
    Line::from(format!("      {}", top.join("  "))).dim()
}

/// The newest `width` rates as bars, the highest of them full.
fn sparkline(history: Option<&VecDeque<f64>>, width: usize) -> String {
    let levels = bar::NINE_LEVELS;
    let glyphs = [
        levels.empty,
        levels.one_eighth,
        levels.one_quarter,
        levels.three_eighths,
        levels.half,
        levels.five_eighths,
        levels.three_quarters,
        levels.seven_eighths,
        levels.full,
    ];
    let Some(history) = history else {
        return String::new();
    };
    let newest: Vec<f64> = history
        .iter()
        .skip(history.len().saturating_sub(width))
        .copied()
        .collect();
    let top = newest.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    // What is above nothing shows as something.
    newest
        .iter()
        .map(|rate| glyphs[((rate / top * 8.0).ceil() as usize).min(8)])
        .collect()
}

/// A number, if it is known.
fn known(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// Three digits, or what is before the point.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn length(length: Option<Duration>) -> String {
    let Some(length) = length else {
        return "-".to_owned();
    };
    let micros = length.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    format!(
        "{}{unit}",
        if value < 99.95 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        }
    )
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::super::{
            rates::{
                Rates,
                tests::{reading, thread},
            },
            watched::Reading,
        },
        *,
    };

    fn screen(width: u16, height: u16, reading: &Reading, notes: &[String]) -> String {
        let report = Report {
            t_s: 2.0,
            rates: Rates::from(Duration::ZERO).end(reading),
            reading: reading.clone(),
        };
        let mut shown = Shown::default();
        shown.take(&report, notes);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
        terminal.draw(|frame| draw(frame, &mut shown)).expect("memory");
        terminal.backend().to_string()
    }

    #[test]
    fn a_vcpu_has_its_rate_and_why_it_exits() {
        let mut reading = reading(2, vec![thread(7, 51_200)]);
        let notes = ["kvm_exit never fired".to_owned()];
        let text = screen(80, 24, &reading, &notes);
        for words in [
            "1 qemu",
            " 100 ",
            " 25.5",
            "DIRTY_RING_FULL 25.5/s",
            "this host's KVM reports no other exits",
            "nothing lost",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(text.contains("kvm_exit never fired"), "{text}");
        reading.lost.stalls = 3;
        reading.ended.insert(1);
        let text = screen(80, 24, &reading, &notes);
        assert!(text.contains("3 records lost") && text.contains("has ended"), "{text}");
    }

    #[test]
    fn no_screen_is_too_small() {
        let reading = reading(2, (0..50).map(|n| thread(n, 1000)).collect());
        for (width, height) in [(1, 1), (20, 5), (80, 24), (160, 50)] {
            screen(width, height, &reading, &[]);
        }
        assert!(screen(80, 24, &reading, &[]).contains("lines above"));
    }

    #[test]
    fn values_keep_their_width() {
        let numbers = [0.0, 0.004, 9.99, 10.0, 99.9, 100.0, 123_456.0].map(number);
        assert_eq!(numbers, ["0", "0.00", "9.99", "10.0", "99.9", "100", "123456"]);
        let lengths = [7, 99_949, 999_400, 1_000_000, 21_660_000_000].map(|ns| length(Some(Duration::from_nanos(ns))));
        assert_eq!(lengths, ["0.0us", "99.9us", "999us", "1.0ms", "21.7s"]);
    }

    #[test]
    fn the_newest_rates_are_shown_and_little_is_not_nothing() {
        let history = VecDeque::from([100.0, 0.0, 0.1, 4.0, 8.0]);
        assert_eq!(sparkline(Some(&history), 4), " \u{2581}\u{2584}\u{2588}");
        assert_eq!(sparkline(None, 4), "");
    }
}
