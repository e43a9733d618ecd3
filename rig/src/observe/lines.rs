//! Lines for pipes: CSV with a header, or a JSON object per line; one per vCPU and interval.

use anyhow::Context as _;
use dirtyrig_probes::VcpuId;
use serde::Serialize;

use super::{
    outlet::{Outlet, Report},
    rates::{StallFigures, VcpuRates},
};
use crate::stdout::data;

/// How many exit reasons a line has.
const TOP: usize = 5;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Comma-separated values.
    Csv,
    /// JSON lines.
    Json,
}

/// One vCPU in one interval. The names are the columns; `docs/observe.md` says what each means.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Line<'a> {
    t_s: f64,
    pid: u32,
    process: &'a str,
    vcpu: Option<u32>,
    thread: u32,
    ended: bool,
    dirty_mib_s: Option<f64>,
    dirtied_pages: Option<u64>,
    ring_full_per_s: Option<f64>,
    ring_full_exits: Option<u64>,
    stalled_pct: Option<f64>,
    in_run_pct: Option<f64>,
    ring_full_stalls: Option<u64>,
    ring_full_p50_us: Option<f64>,
    ring_full_p99_us: Option<f64>,
    ring_full_max_us: Option<f64>,
    interrupted_stalls: Option<u64>,
    interrupted_p50_us: Option<f64>,
    interrupted_p99_us: Option<f64>,
    interrupted_max_us: Option<f64>,
    userspace_exits: Option<u64>,
    hardware_exits: Option<u64>,
    lost_records: u64,
    vm: Option<&'a str>,
    uuid: Option<&'a str>,
    vcpu_is: Option<&'static str>,
    kvm_id: Option<u32>,
    cpu_index: Option<u32>,
}

/// Prints them.
#[derive(Debug)]
pub struct Lines {
    form: Form,
    begun: bool,
}

impl Lines {
    /// Lines in this form.
    pub fn new(form: Form) -> Self {
        Self { form, begun: false }
    }
}

impl Outlet for Lines {
    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let lines = report.rates.iter().filter(|rates| is_news(rates)).map(|rates| {
            let (line, exits) = (line(report, rates), top(rates));
            match self.form {
                Form::Csv => csv_line(&line, &exits),
                Form::Json => json_line(&line, &exits),
            }
        });
        let mut text: Vec<String> = lines.collect::<anyhow::Result<_>>()?;
        if self.form == Form::Csv && !std::mem::replace(&mut self.begun, true) {
            text.insert(0, header()?);
        }
        if text.is_empty() { Ok(()) } else { data(text.join("\n")) }
    }
}

/// A thread that has ended has a last line, in the interval in which it did anything last.
fn is_news(rates: &VcpuRates) -> bool {
    let did = rates.dirty_mib_s > Some(0.0) || !rates.exits.is_empty();
    !rates.counters.gone || did
}

fn line<'a>(report: &'a Report, rates: &VcpuRates) -> Line<'a> {
    let counters = &rates.counters;
    let reading = &report.reading;
    let sees = reading.sees;
    let vm = reading.vms.get(&counters.process);
    let micros = |length: Option<std::time::Duration>| length.map(|length| round(length.as_secs_f64() * 1e6));
    let StallFigures {
        count, p50, p99, max, ..
    } = rates.ring_full;
    let other = rates.interrupted;
    Line {
        t_s: round(report.t_s),
        pid: counters.process,
        process: vm.map_or("", |vm| vm.process.as_str()),
        vcpu: counters.number.map(|number| number.value),
        thread: counters.thread,
        ended: counters.gone,
        dirty_mib_s: rates.dirty_mib_s.map(round),
        dirtied_pages: (sees.pages && counters.sees_pages).then_some(counters.pushed_pages),
        ring_full_per_s: rates.ring_full_per_s.map(round),
        ring_full_exits: sees.returns.then_some(counters.ring_full_exits),
        stalled_pct: rates.stalled_pct.map(round),
        in_run_pct: rates.in_run_pct.map(round),
        ring_full_stalls: sees.stall_ends.then_some(count),
        ring_full_p50_us: micros(p50),
        ring_full_p99_us: micros(p99),
        ring_full_max_us: micros(max),
        interrupted_stalls: sees.stall_ends.then_some(other.count),
        interrupted_p50_us: micros(other.p50),
        interrupted_p99_us: micros(other.p99),
        interrupted_max_us: micros(other.max),
        userspace_exits: sees.returns.then_some(counters.userspace_exits),
        hardware_exits: sees.hardware_exits.then_some(counters.exits),
        lost_records: reading.lost.total(),
        vm: vm.and_then(|vm| vm.name.as_deref()),
        uuid: vm.and_then(|vm| vm.uuid.as_deref()),
        vcpu_is: counters.number.map(|number| number.kind.name()),
        kvm_id: counters.vcpu.and_then(VcpuId::kvm_id),
        cpu_index: counters.vcpu.and_then(|vcpu| vcpu.index),
    }
}

/// To a thousandth: more is noise that fills pipes.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Exit<'a> {
    reason: &'a str,
    per_s: f64,
}

fn top(rates: &VcpuRates) -> Vec<Exit<'_>> {
    let exits = rates.exits.iter().take(TOP);
    exits
        .map(|exit| Exit {
            reason: &exit.name,
            per_s: round(exit.per_s),
        })
        .collect()
}

/// The last column of CSV, which has no lists.
const EXITS: &str = "top_exits";

fn header() -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(Line::default()).context("can't name the columns")?;
    let text = String::from_utf8(writer.into_inner()?)?;
    Ok(format!("{},{EXITS}", text.lines().next().unwrap_or_default()))
}

fn csv_line(line: &Line<'_>, exits: &[Exit<'_>]) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.serialize(line).context("can't put a line into CSV")?;
    let text = String::from_utf8(writer.into_inner()?)?;
    let exits: Vec<String> = exits
        .iter()
        .map(|exit| format!("{} {}/s", exit.reason, exit.per_s))
        .collect();
    Ok(format!("{},{}", text.trim_end(), exits.join("; ")))
}

fn json_line(line: &Line<'_>, exits: &[Exit<'_>]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        line: &'a Line<'a>,
        top_exits: &'a [Exit<'a>],
    }
    serde_json::to_string(&Whole { line, top_exits: exits }).context("can't put a line into JSON")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            rates::{
                Rates,
                tests::{reading, thread},
            },
            watched::Sees,
        },
        *,
    };

    fn report() -> Report {
        let mut reading = reading(2, vec![thread(7, 5120)]);
        let vm = reading.vms.entry(1).or_default();
        (vm.process, vm.name) = ("a, b".to_owned(), Some("web01".to_owned()));
        Report {
            t_s: 2.0,
            rates: Rates::from(Duration::ZERO).end(&reading),
            reading,
        }
    }

    #[test]
    fn csv_has_a_value_for_each_column() {
        let report = report();
        let text = csv_line(&line(&report, &report.rates[0]), &top(&report.rates[0])).expect("plain values");
        let whole = format!("{}\n{text}\n", header().expect("names"));
        let mut reader = csv::Reader::from_reader(whole.as_bytes());
        let names = reader.headers().expect("a header").clone();
        let row = reader
            .records()
            .next()
            .expect("a row")
            .expect("as many values as columns");
        let value = |name: &str| &row[names.iter().position(|n| n == name).expect(name)];
        assert_eq!(
            (
                value("process"),
                value("vcpu"),
                value("dirty_mib_s"),
                value("vm"),
                value("uuid")
            ),
            ("a, b", "", "10.0", "web01", "")
        );
        assert_eq!(value("hardware_exits"), "", "not seen, so no zero");
        assert_eq!(value("ring_full_p50_us"), "", "no stall, no length");
        assert_eq!(value("top_exits"), "KVM_EXIT_DIRTY_RING_FULL 2.5/s");
    }

    #[test]
    fn what_the_kernel_does_not_show_is_empty() {
        let seen = report();
        let mut blind = report();
        blind.reading.sees = Sees::default();
        blind.rates = Rates::from(Duration::ZERO).end(&blind.reading);
        let values = |report: &Report| {
            let text = json_line(&line(report, &report.rates[0]), &[]).expect("plain values");
            serde_json::from_str::<serde_json::Map<_, _>>(&text).expect("an object")
        };
        let (seen, blind) = (values(&seen), values(&blind));
        let told = [
            "t_s",
            "pid",
            "process",
            "thread",
            "ended",
            "lost_records",
            "vm",
            "top_exits",
        ];
        for (name, value) in &blind {
            assert_eq!(!value.is_null(), told.contains(&name.as_str()), "{name}: {value}");
            // A length needs a stall, and the host of this test no hardware exits.
            let needs = ["_us", "hardware_exits"];
            let unknown = ["vcpu", "vcpu_is", "kvm_id", "cpu_index", "uuid"];
            assert!(
                !seen[name].is_null()
                    || needs.iter().any(|end| name.ends_with(end))
                    || unknown.contains(&name.as_str()),
                "{name}"
            );
        }
    }

    #[test]
    fn json_has_the_same_names() {
        let report = report();
        let text = json_line(&line(&report, &report.rates[0]), &top(&report.rates[0])).expect("plain values");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let fields = value.as_object().expect("an object");
        let header = header().expect("names");
        assert!(
            header.split(',').all(|name| fields.contains_key(name)),
            "{header} {text}"
        );
        assert_eq!(fields.len(), header.split(',').count());
        assert!(value["hardware_exits"].is_null() && value["vcpu"].is_null());
        assert_eq!(value["top_exits"][0]["per_s"], 2.5);
    }

    #[test]
    fn an_ended_thread_is_told_once() {
        let mut rates = Rates::from(Duration::ZERO);
        let gone = dirtyrig_probes::VcpuCounters {
            gone: true,
            ..thread(7, 5120)
        };
        assert!(is_news(&rates.end(&reading(1, vec![gone.clone()]))[0]));
        assert!(!is_news(&rates.end(&reading(2, vec![gone]))[0]));
    }
}
