//! `dirtyrig floor`: the lowest quota that a limiter holds.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Context;
use dirtyrig_limiter::units::Quota;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{progress::Live, results, table::verdict};
use crate::{
    commands::{exit, flags::OutputFlags, output::note},
    engine::interrupt::Interrupt,
    machine::require_kvm,
    model::{Summary, Verdict},
    qemu::choice::Choice,
    recording::{Manifest, Recorder, Recording},
    scenario::{
        End, Scenario,
        per_vcpu::{MaybeQuota, PerVcpu},
        probe_mode::ProbeMode,
        settings::Settings,
    },
    session::build_target,
    stdout::{self, data},
    sweep::{
        calibration,
        execute::run_on,
        floor_search::{Bracket, FloorSearch, Range, Tried},
    },
};

/// Search the lowest quota that a limiter holds
///
/// Quotas are tried from the lowest upwards, each twice the one before, until one is held; where none is, up to almost the
/// unlimited rate, smaller steps follow. Then the range below the held quota is halved on a logarithmic scale. A quota is
/// held if the rate settles and every limited vCPU is within the allowed error of it, below as well as above, by the guest's
/// own counter. The floor lies between the lowest quota that was held and the one below it that was not; both are tried
/// several times before they are believed.
///
/// Beside the floor stands the lowest rate to which the limiter brought the guest, whatever the quota: the letter of QEMU's
/// dirty limit calls that its minimum.
///
/// Each try is a cell of a recording, as those of a sweep are. An interrupted search keeps those that were finished.
#[derive(clap::Args, Clone, Debug)]
#[command(
    mut_arg("quota", |arg| arg.hide(true)),
    mut_arg("at", |arg| arg.hide(true)),
    mut_arg("probes", |arg| arg.hide(true)),
    mut_arg("json", |arg| arg.help("Print JSON instead of CSV")),
    mut_arg("repetitions", |arg| arg.help("How often the two quotas next to the floor are tried [default: 3]")),
    after_help = "\
Examples:
  dirtyrig floor --ring 65536
  dirtyrig floor --ring 4096,16384,65536 --limiter qemu-7.2,budget > floors.csv
  dirtyrig floor --limiter budget --within 2 --lowest 0.25 --json

One CSV row (or with --json one JSON object) for each combination. An empty `not_held_mib_s` means \
that even the lowest quota was held, an empty `floor_mib_s` that none was, an empty \
`lowest_rate_mib_s` that no rate was steady."
)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,

    /// Error in percent up to which a quota counts as held
    #[arg(long, value_name = "PCT", default_value = "10", value_parser = positive, help_heading = "Search", allow_negative_numbers = true)]
    within: f64,

    /// Where the search ends at the lower end, in MiB/s
    #[arg(
        long,
        value_name = "MIB_S",
        default_value = "1",
        help_heading = "Search",
        allow_negative_numbers = true
    )]
    lowest: Quota,

    /// How narrow the range becomes, in percent of its lower end
    #[arg(long, value_name = "PCT", default_value = "10", value_parser = positive, help_heading = "Search", allow_negative_numbers = true)]
    resolution: f64,

    #[command(flatten)]
    output: OutputFlags,
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` is no number: give one above 0, such as 10"))?;
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(format!("{value} is out of range: give a number above 0, such as 10"))
    }
}

/// Highest quota tried, as a share of the unlimited rate: above it there is hardly anything to limit.
const HIGHEST_SHARE: f64 = 0.8;
/// How often the ends are tried when nothing is said: the fewest of which two can outvote one.
const REPETITIONS: u32 = 3;

/// What a search found: a row of the output.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct FloorRow {
    limiter: String,
    guest: String,
    ring_entries: u32,
    period_ms: u64,
    vcpus: usize,
    memory_mib: u64,
    within_pct: f64,
    /// Rate of the fastest vCPU without a limit.
    unlimited_mib_s: f64,
    /// The lowest quota that was held.
    floor_mib_s: Option<f64>,
    /// The highest quota below it that was not held: the floor lies between the two. Where none was held, the highest of all.
    not_held_mib_s: Option<f64>,
    /// How often the lowest quota that was held was held, and tried.
    floor_held: u32,
    floor_tries: u32,
    /// The same for the highest that was not.
    not_held_held: u32,
    not_held_tries: u32,
    /// Ring bytes / period.
    predicted_floor_mib_s: f64,
    seed: u64,
    /// How many different quotas were tried.
    quotas: usize,
    /// The lowest steady rate to which a quota brought the guest, of its fastest limited vCPU, whether it was held or not.
    lowest_rate_mib_s: Option<f64>,
    /// The quota that did.
    lowest_rate_quota_mib_s: Option<f64>,
}

/// Runs the searches, one for each combination of the settings.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut settings = args.settings.clone();
    anyhow::ensure!(
        settings.quota.is_empty(),
        "`floor` searches the quota itself: leave `--quota` out"
    );
    anyhow::ensure!(
        settings.at.is_empty(),
        "`floor` looks for one steady rate: leave `--at` out"
    );
    let choice = Choice::of(&mut settings)?;
    anyhow::ensure!(
        settings.probes.is_none(),
        "`floor` runs its cells without probes: leave `--probes` out"
    );
    let seed = settings.seed.unwrap_or_else(results::seed);
    let combinations = choice.fitting(settings.combinations());
    for combination in &combinations {
        limited(combination, args.lowest, seed)?;
    }
    let dir = results::folder(args.output.out.as_deref(), "floor")?;
    require_kvm()?;
    let interrupt = Interrupt::from_signals()?;
    let mut tries = Tries {
        dir,
        machine: results::machine(),
        searched: describe(args, &settings)?,
        seed,
        interrupt: &interrupt,
        recorder: None,
    };
    let outcome = search_all(args, &combinations, &mut tries);
    let kept = tries.end()?;
    if let Some(dir) = &kept {
        let words = if outcome.is_ok() {
            "results"
        } else {
            "the quotas that were tried until then"
        };
        note(format_args!("{words}: {}", dir.display()));
    }
    let rows = outcome?;
    if args.output.json {
        stdout::json(&rows)?;
    }
    if let Some(dir) = kept {
        results::plots(&Recording::open(dir)?);
    }
    Ok(exit::OK)
}

fn search_all(args: &Args, combinations: &[Settings], tries: &mut Tries<'_>) -> anyhow::Result<Vec<FloorRow>> {
    let mut rows = Vec::new();
    for (index, combination) in combinations.iter().enumerate() {
        let row = search(args, combination, tries)?;
        note(verdict_in_words(&row));
        if !args.output.json {
            // As they come: a search is long, and the next one may be interrupted.
            data(csv_lines(&row, index == 0)?)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What is searched, for the manifest.
fn describe(args: &Args, settings: &Settings) -> anyhow::Result<Value> {
    let settings = serde_json::to_value(settings).context("can't describe the settings")?;
    Ok(json!({
        "floor": settings,
        "within_pct": args.within,
        "lowest_mib_s": args.lowest.mib_per_sec(),
        "resolution_pct": args.resolution,
    }))
}

/// The tries of all searches: each is a cell of one recording, which begins with the first of them.
struct Tries<'a> {
    dir: PathBuf,
    machine: Map<String, Value>,
    searched: Value,
    seed: u64,
    interrupt: &'a Interrupt,
    recorder: Option<Recorder>,
}

impl Tries<'_> {
    /// Runs a cell and keeps it.
    fn run(&mut self, scenario: &Scenario, repetition: u32) -> anyhow::Result<Vec<Summary>> {
        let recorder = match &mut self.recorder {
            Some(recorder) => recorder,
            none => {
                let manifest = Manifest::new(self.seed, [], self.machine.clone(), self.searched.clone());
                none.insert(Recorder::create(self.dir.clone(), manifest)?)
            }
        };
        let cell = recorder.plan_cell()?;
        let target = build_target(&scenario.vm).context("can't start the guest")?;
        let mut live = Live::quiet(scenario);
        let outcome = run_on(
            target,
            (cell, repetition),
            scenario,
            recorder,
            &mut live,
            self.interrupt,
        );
        live.end();
        match outcome {
            Ok((_, summaries)) => {
                recorder.append_summaries(cell, &summaries)?;
                Ok(summaries)
            }
            Err(error) => {
                recorder.abandon_cell()?;
                Err(error)
            }
        }
    }

    /// Ends the recording: its folder, if anything was tried.
    fn end(self) -> anyhow::Result<Option<PathBuf>> {
        let Some(recorder) = self.recorder else {
            return Ok(None);
        };
        recorder.finish()?;
        Ok(Some(self.dir))
    }
}

/// The cell that tries `quota` on every vCPU.
fn limited(settings: &Settings, quota: Quota, seed: u64) -> anyhow::Result<Scenario> {
    let settings = Settings {
        quota: vec![PerVcpu::all(MaybeQuota(Some(quota)))],
        probes: Some(ProbeMode::Off),
        ..settings.clone()
    };
    Ok(Scenario::new(&settings, seed, End::WhenMeasured)?)
}

fn search(args: &Args, settings: &Settings, tries: &mut Tries<'_>) -> anyhow::Result<FloorRow> {
    let seed = tries.seed;
    let unlimited = calibration::unlimited_mib_s(settings, &build_target, tries.interrupt)?;
    let highest = HIGHEST_SHARE * unlimited;
    let lowest = args.lowest.mib_per_sec();
    anyhow::ensure!(
        lowest < highest,
        "`--lowest {lowest}` is too high: the guest dirties only {unlimited:.0} MiB/s unlimited, so give less than \
         {highest:.0}"
    );
    let repetitions = settings.repetitions.map_or(REPETITIONS, |count| count.get() as u32);
    let mut floor = FloorSearch::new(Range {
        lowest,
        highest,
        within: args.within / 100.0,
        ratio: 1.0 + args.resolution / 100.0,
        repetitions,
    });
    let mut steady = Vec::new();
    // How often each quota was tried.
    let mut repeated: HashMap<u64, u32> = HashMap::new();
    let scenario = limited(settings, args.lowest, seed)?;
    let vm = &scenario.vm;
    note(format_args!(
        "{}, ring {}, period {} s: unlimited {unlimited:.0} MiB/s, searching from {lowest} to {highest:.0}",
        vm.limiter.kind,
        vm.ring.entries(),
        vm.limiter.period.as_secs_f64()
    ));
    while let Some(quota_mib_s) = floor.next() {
        let quota = Quota::new(quota_mib_s).context("the search left the range of quotas")?;
        let repetition = repeated.entry(quota_mib_s.to_bits()).or_default();
        let summaries = tries.run(&limited(settings, quota, seed)?, *repetition)?;
        *repetition += 1;
        let held = summaries.iter().all(|row| is_held(row, args.within));
        let rate = |row: &Summary| {
            row.guest_mib_s
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
        };
        let rates: Vec<String> = summaries.iter().map(rate).collect();
        note(format_args!(
            "  {quota_mib_s:.2} MiB/s: {}, truth {} ({})",
            if held { "held" } else { "not held" },
            rates.join(", "),
            summaries.first().map_or("", |row| verdict(row.verdict))
        ));
        floor.record(quota_mib_s, held);
        steady.extend(steady_rate(&summaries).map(|rate_mib_s| (rate_mib_s, quota_mib_s)));
    }
    let Bracket { not_held, held } = floor.bracket();
    let lowest_rate = steady.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    let count = |end: Option<Tried>, of: fn(Tried) -> u32| end.map_or(0, of);
    Ok(FloorRow {
        limiter: vm.limiter.kind.to_string(),
        guest: scenario.settings().guest[0].to_string(),
        ring_entries: vm.ring.entries(),
        period_ms: vm.limiter.period.as_millis() as u64,
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        within_pct: args.within,
        unlimited_mib_s: unlimited,
        floor_mib_s: held.map(|end| end.quota_mib_s),
        not_held_mib_s: not_held.map(|end| end.quota_mib_s),
        floor_held: count(held, |end| end.held),
        floor_tries: count(held, |end| end.tries),
        not_held_held: count(not_held, |end| end.held),
        not_held_tries: count(not_held, |end| end.tries),
        predicted_floor_mib_s: crate::scenario::spec::predicted_floor_mib_s(vm.ring, vm.limiter.period),
        seed,
        quotas: floor.quotas(),
        lowest_rate_mib_s: lowest_rate.map(|(rate, _)| rate),
        lowest_rate_quota_mib_s: lowest_rate.map(|(_, quota)| quota),
    })
}

/// Whether a vCPU settled within `within_pct` of its quota, by its own counter. What the law itself tolerates does not
/// count: the question is how low the guest really is held.
fn is_held(row: &Summary, within_pct: f64) -> bool {
    let is_near = |quota: f64| {
        row.guest_mib_s
            .is_some_and(|guest| (guest - quota).abs() <= quota * within_pct / 100.0)
    };
    row.quota_mib_s.is_none_or(|quota| is_steady(row) && is_near(quota))
}

/// Whether the limiter brought a vCPU to a rate that it stays at.
fn is_steady(row: &Summary) -> bool {
    !matches!(
        row.verdict,
        Verdict::NotSettled | Verdict::Oscillating | Verdict::GuestTooSlow
    )
}

/// The rate of the fastest limited vCPU, if all of them are steady and known.
fn steady_rate(rows: &[Summary]) -> Option<f64> {
    let limited = rows.iter().filter(|row| row.quota_mib_s.is_some());
    let rates: Option<Vec<f64>> = limited.map(|row| row.guest_mib_s.filter(|_| is_steady(row))).collect();
    rates?.into_iter().reduce(f64::max)
}

fn verdict_in_words(row: &FloorRow) -> String {
    let head = format!(
        "{}, ring {}, period {} s",
        row.limiter,
        row.ring_entries,
        row.period_ms as f64 / 1000.0
    );
    let floor = match (row.not_held_mib_s, row.floor_mib_s) {
        (Some(low), Some(high)) => format!(
            "the floor lies between {low:.2} (held {} of {} times) and {high:.2} MiB/s (held {} of {})",
            row.not_held_held, row.not_held_tries, row.floor_held, row.floor_tries
        ),
        (None, Some(high)) => format!("even {high:.2} MiB/s is held; `--lowest` looks further down"),
        (Some(high), None) => format!("none of {} quotas up to {high:.2} MiB/s is held", row.quotas),
        (None, None) => "nothing was tried".to_owned(),
    };
    let lowest = match (row.lowest_rate_mib_s, row.lowest_rate_quota_mib_s) {
        (Some(rate), Some(quota)) => {
            format!("the lowest rate that it brings the guest to is {rate:.2} MiB/s, at a quota of {quota:.2}")
        }
        _ => "no quota brings the guest to a steady rate".to_owned(),
    };
    format!(
        "{head}: {floor}; {lowest}; ring bytes / period is {:.0}",
        row.predicted_floor_mib_s
    )
}

fn csv_lines(row: &FloorRow, header: bool) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(header).from_writer(Vec::new());
    writer.serialize(row).context("can't put the floor into CSV")?;
    let bytes = writer.into_inner().context("can't put the floor into CSV")?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(quota: f64, guest: f64, verdict: Verdict) -> Summary {
        Summary {
            quota_mib_s: Some(quota),
            guest_mib_s: Some(guest),
            verdict,
            ..Summary::default()
        }
    }

    #[test]
    fn held_means_settled_and_near_from_either_side() {
        assert!(is_held(&row(100.0, 109.0, Verdict::Held), 10.0));
        assert!(is_held(&row(100.0, 91.0, Verdict::ToleranceBound), 10.0));
        assert!(!is_held(&row(100.0, 111.0, Verdict::ToleranceBound), 10.0));
        assert!(
            !is_held(&row(100.0, 18.0, Verdict::Missed), 10.0),
            "a stopped guest holds nothing"
        );
        assert!(!is_held(&row(100.0, 100.0, Verdict::Oscillating), 10.0));
        let unlimited = Summary {
            verdict: Verdict::Unlimited,
            ..Summary::default()
        };
        assert!(is_held(&unlimited, 10.0), "a vCPU without a limit does not count");
    }

    #[test]
    fn the_rate_of_a_try_is_that_of_its_fastest_limited_vcpu_where_all_are_steady() {
        let unlimited = Summary {
            guest_mib_s: Some(1600.0),
            verdict: Verdict::Unlimited,
            ..Summary::default()
        };
        let (slow, fast) = (row(1.0, 16.0, Verdict::CapBound), row(1.0, 18.0, Verdict::CapBound));
        assert_eq!(steady_rate(&[slow.clone(), unlimited.clone(), fast]), Some(18.0));
        assert_eq!(steady_rate(&[slow, row(1.0, 0.0, Verdict::NotSettled)]), None);
        assert_eq!(steady_rate(&[unlimited]), None, "nothing was limited");
    }

    #[test]
    fn the_sentence_has_the_floor_and_the_lowest_rate() {
        let row = FloorRow {
            limiter: "qemu-7.2".to_owned(),
            guest: "sequential".to_owned(),
            ring_entries: 4096,
            period_ms: 1000,
            vcpus: 1,
            memory_mib: 1024,
            within_pct: 10.0,
            unlimited_mib_s: 179.0,
            floor_mib_s: Some(18.0),
            not_held_mib_s: Some(16.5),
            floor_held: 2,
            floor_tries: 3,
            not_held_held: 0,
            not_held_tries: 3,
            predicted_floor_mib_s: 16.0,
            seed: 1,
            quotas: 8,
            lowest_rate_mib_s: Some(16.2),
            lowest_rate_quota_mib_s: Some(1.0),
        };
        assert_eq!(
            verdict_in_words(&row),
            "qemu-7.2, ring 4096, period 1 s: the floor lies between 16.50 (held 0 of 3 times) and 18.00 MiB/s (held 2 of 3); \
             the lowest rate that it brings the guest to is 16.20 MiB/s, at a quota of 1.00; ring bytes / period is 16"
        );
        let none = FloorRow {
            floor_mib_s: None,
            not_held_mib_s: Some(143.0),
            lowest_rate_mib_s: None,
            lowest_rate_quota_mib_s: None,
            ..row
        };
        assert_eq!(
            verdict_in_words(&none),
            "qemu-7.2, ring 4096, period 1 s: none of 8 quotas up to 143.00 MiB/s is held; no quota brings the guest to a \
             steady rate; ring bytes / period is 16"
        );
    }
}
