//! What one cell does: a VM, the limits it starts with, the changes in time, and when it ends.

pub mod file;
pub mod per_vcpu;
pub mod probe_mode;
pub mod rules;
pub mod script;
pub mod settings;
pub mod spec;
mod text;
pub mod values;
pub mod vmm;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{
    LimiterSpec,
    law::LimiterKind,
    limit::LimitError,
    units::{Pages, Quota},
};

use self::{
    per_vcpu::{MaybeQuota, PerVcpu},
    probe_mode::ProbeMode,
    script::{Action, Event},
    settings::Settings,
    spec::VmSpec,
    vmm::Vmm,
};
use crate::{
    model::Rules,
    trace::{Outline, TraceError},
};

/// When a cell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// When its duration is over.
    AtDuration,
    /// When it has settled and been measured, at the latest when its duration is over.
    WhenMeasured,
    /// When it is told to, which is no interruption, at the latest when its duration is over.
    WhenTold,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The VM and its limiter.
    pub vm: VmSpec,
    /// The limit of each vCPU from the start; as many as there are vCPUs.
    pub quotas: Vec<Option<Quota>>,
    /// The limit of all of them together.
    pub vm_quota: Option<Quota>,
    /// Changes, in the order of their times.
    pub script: Vec<Event>,
    /// Time between samples.
    pub sample_every: Duration,
    /// How long the guest runs unlimited first.
    pub warm_up: Duration,
    /// How long it lasts after that.
    pub duration: Duration,
    /// Whether it may end earlier.
    pub end: End,
    /// Whether the probes watch it.
    pub probes: ProbeMode,
}

/// QEMU's own choice in its examples, and the smaller of the two published sizes.
const DEFAULT_RING: u32 = 4096;
/// Short against what a guest's users notice.
pub const MAX_STALL: Duration = Duration::from_millis(5);
/// A guest whose cycles of work and rest are shorter gets its quota; what it does at once is no more than it would in a
/// second. Measured: docs/limiters.md says what shallower and deeper ones cost.
pub const BURST: Duration = Duration::from_secs(1);
/// Half a second in which caches, page tables and the CPU's clock get warm, and a second that is measured.
const WARM_UP: Duration = Duration::from_millis(1500);
/// Ten samples see the shortest sensible period of a second, and cost nothing to take.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How long a run lasts when nothing is said: long enough to see every limiter settle at a period of a second.
const RUN_DURATION: Duration = Duration::from_secs(20);
/// As good as no end, and still a time that clocks can count to.
const UNTIL_TOLD: Duration = Duration::from_hours(365 * 24);
/// How long a run goes on after the last change of its script.
const AFTER_LAST_CHANGE: Duration = Duration::from_secs(10);
/// Windows of the analysis (a period each, for QEMU's laws) in which a cell of a sweep must have settled and been
/// measured: three times as many as it usually needs.
const CELL_WINDOWS: f64 = 30.0;
/// The least a cell of a sweep gets, however short its period.
const CELL_LEAST: Duration = Duration::from_secs(8);
/// Of guest memory for each vCPU in MiB: twice what the largest ring covers, so that every ring can fill.
const MEMORY_PER_VCPU_MIB: u64 = 512;
/// The least memory of a replay, however few pages it has: what `--memory` takes.
const LEAST_MEMORY_MIB: u64 = 16;

/// Why settings make no cell.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A list where one value belongs.
    #[error(
        "`{flag}` was given {given} values, but one run has one: give one, or use `dirtyrig sweep` for all of them"
    )]
    Several {
        /// The setting's flag.
        flag: &'static str,
        /// How many values it was given.
        given: usize,
    },
    /// More values than vCPUs.
    #[error(
        "`{flag}` has values for {given} vCPUs, but the guest has {vcpus}: give at most {vcpus}, or `--vcpus {given}`"
    )]
    TooManyValues {
        /// The setting's flag.
        flag: &'static str,
        /// How many values it has.
        given: usize,
        /// How many vCPUs there are.
        vcpus: usize,
    },
    /// More vCPUs plugged than there are.
    #[error("`--plugged {plugged}` is more than the guest's {vcpus} vCPUs: give at most {vcpus}, or raise `--vcpus`")]
    TooManyPlugged {
        /// How many were to be plugged.
        plugged: usize,
        /// How many there are.
        vcpus: usize,
    },
    /// A change of a vCPU that the guest can't have.
    #[error(
        "`{event}` names vCPU {vcpu}, but the guest has room for {vcpus}: give an index below {vcpus}, or raise `--vcpus`"
    )]
    NoSuchVcpu {
        /// The change.
        event: Event,
        /// Its vCPU.
        vcpu: usize,
        /// How many vCPUs there are.
        vcpus: usize,
    },
    /// A change that would never happen.
    #[error("`{event}` comes after the end at {}: raise `--duration`", humantime::format_duration(*duration))]
    AfterTheEnd {
        /// The change.
        event: Event,
        /// When the cell ends.
        duration: Duration,
    },
    /// A quota, and nothing that could hold it.
    #[error(
        "limiter `none` can't hold a quota: leave `--quota` and `set` out, or choose another limiter, such as qemu-7.2"
    )]
    NoLimiter,
    /// A quota for the whole VM, and a limiter that knows vCPUs only.
    #[error(transparent)]
    NoVmLimit(LimitError),
    /// A change of a burst, and a limiter that saves nothing up.
    #[error(transparent)]
    NoBurst(LimitError),
    /// A replay, and nothing to replay.
    #[error(
        "guest `replay` needs a dirty trace: give it with `--replay FILE` instead of `--guest`, or choose another guest"
    )]
    NothingToReplay,
    /// A replay, and something else to run.
    #[error("a trace is replayed by its own guest on its own {vcpus} vCPUs: leave `{flag}` out, or `--replay`")]
    ReplayAlone {
        /// The other setting.
        flag: &'static str,
        /// The vCPUs of the trace.
        vcpus: usize,
    },
    /// A replay in a VM that has a guest already.
    #[error(
        "a QEMU that runs already runs its own guest: leave `--replay` out, or give `--vmm qemu` instead of `--vmm {vmm}`"
    )]
    ReplayElsewhere {
        /// The VMM that was asked for.
        vmm: Vmm,
    },
    /// A trace that can't be replayed.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl Scenario {
    /// The cell that `settings` describe; what they leave unsaid gets its default.
    pub fn new(settings: &Settings, seed: u64, end: End) -> Result<Self, ScenarioError> {
        let ring = single("--ring", &settings.ring)?
            .unwrap_or_else(|| values::Ring::new(DEFAULT_RING).expect("the default is a power of two in range"));
        let period = single("--period", &settings.period)?.map_or(Duration::from_secs(1), values::Period::length);
        let limiter = single("--limiter", &settings.limiter)?.unwrap_or(LimiterKind::Qemu72);
        let max_stall = settings.max_stall.map_or(MAX_STALL, |values::Span(span)| span);
        let burst = settings.burst.map_or(BURST, |values::Span(span)| span);
        let replay = settings.replay.as_deref().map(Outline::read).transpose()?;
        let vcpus = replay.as_ref().map_or(1, |trace| trace.vcpus.len());
        let vcpus = single("--vcpus", &settings.vcpus)?.map_or(vcpus, |count| count.get() as usize);
        let plugged = settings.plugged.map_or(vcpus, |count| count.get() as usize);
        if plugged > vcpus {
            return Err(ScenarioError::TooManyPlugged { plugged, vcpus });
        }
        let program = if replay.is_some() {
            Program::Replay
        } else {
            Program::Sequential
        };
        let programs = single("--guest", &settings.guest)?.unwrap_or(PerVcpu::all(program));
        let quotas = single("--quota", &settings.quota)?.unwrap_or(PerVcpu::all(MaybeQuota(None)));
        for (flag, given) in [("--guest", programs.given()), ("--quota", quotas.given())] {
            if given > vcpus {
                return Err(ScenarioError::TooManyValues { flag, given, vcpus });
            }
        }
        let programs = programs.spread(vcpus);
        let cycle = programs.iter().filter_map(Program::cycle).max();
        let vmm = single("--vmm", &settings.vmm)?.unwrap_or_default();
        if replay.is_some() && matches!(vmm, Vmm::Attach { .. }) {
            return Err(ScenarioError::ReplayElsewhere { vmm });
        }
        let memory_mib = match &replay {
            Some(trace) => replayed_memory_mib(settings, trace, &programs)?,
            None if programs.contains(&Program::Replay) => return Err(ScenarioError::NothingToReplay),
            None => MEMORY_PER_VCPU_MIB * vcpus as u64,
        };
        let mut spec = LimiterSpec::new(limiter);
        (spec.period, spec.max_stall, spec.burst) = (period, max_stall, burst);
        let mut script = settings.at.clone();
        script.sort_by_key(|event| event.at);
        let mut scenario = Self {
            vm: VmSpec {
                ring: ring.0,
                vcpus,
                plugged,
                programs,
                memory_mib: settings.memory.map_or(memory_mib, settings::MemoryMib::get),
                thp: settings.thp,
                limiter: spec,
                seed,
                // From wherever it goes on, a sweep finds it again.
                replay: settings.replay.as_deref().map(absolute).transpose()?,
                vmm,
            },
            quotas: quotas
                .spread(vcpus)
                .into_iter()
                .map(|MaybeQuota(quota)| quota)
                .collect(),
            vm_quota: settings.vm_quota.and_then(|MaybeQuota(quota)| quota),
            script,
            sample_every: SAMPLE_EVERY,
            warm_up: settings
                .warm_up
                .map_or_else(|| warm_up(WARM_UP, cycle), |values::Span(span)| span),
            duration: Duration::ZERO,
            end,
            probes: settings.probes.unwrap_or_default(),
        };
        scenario.duration = settings
            .duration
            .map_or_else(|| scenario.default_duration(), |values::Span(span)| span);
        scenario.check_script()?;
        Ok(scenario)
    }

    fn check_script(&self) -> Result<(), ScenarioError> {
        let vcpus = self.vm.vcpus;
        for &event in &self.script {
            if let Some(vcpu) = event.action.vcpu().filter(|&vcpu| vcpu >= vcpus) {
                return Err(ScenarioError::NoSuchVcpu { event, vcpu, vcpus });
            }
            if event.at >= self.duration {
                return Err(ScenarioError::AfterTheEnd {
                    event,
                    duration: self.duration,
                });
            }
        }
        let limiter = self.vm.limiter.kind;
        let changes = |which: fn(&Action) -> bool| self.script.iter().any(|event| which(&event.action));
        let whole_vm = self.vm_quota.is_some() || changes(|action| matches!(action, Action::SetVm(_)));
        let limits =
            whole_vm || self.quotas.iter().any(Option::is_some) || changes(|action| matches!(action, Action::Set(..)));
        if limits && limiter == LimiterKind::None {
            return Err(ScenarioError::NoLimiter);
        }
        if whole_vm && !limiter.limits_whole_vm() {
            return Err(ScenarioError::NoVmLimit(LimitError::NoVmLimit { limiter }));
        }
        if changes(|action| matches!(action, Action::SetBurst(_))) && !limiter.saves_up() {
            return Err(ScenarioError::NoBurst(LimitError::NoBurst { limiter }));
        }
        Ok(())
    }

    fn default_duration(&self) -> Duration {
        let least = match self.end {
            End::AtDuration => RUN_DURATION,
            End::WhenTold => UNTIL_TOLD,
            End::WhenMeasured => CELL_LEAST.max(Duration::from_secs_f64(CELL_WINDOWS * self.settling_rules().window_s)),
        };
        self.script
            .last()
            .map_or(least, |event| least.max(event.at + AFTER_LAST_CHANGE))
    }

    /// By which rules it settles: of its vCPUs the one that takes longest.
    pub fn settling_rules(&self) -> Rules {
        let quotas = self.quotas.iter().flatten().chain(&self.vm_quota);
        rules::settling(&self.vm, quotas.map(|quota| quota.mib_per_sec()).reduce(f64::min))
    }

    /// Itself as settings, every default spelt out; of a VM that is attached to nothing is said of its guest, which is not
    /// known.
    pub fn settings(&self) -> Settings {
        let vm = &self.vm;
        let is_ours = !matches!(vm.vmm, vmm::Vmm::Attach { .. });
        let count = "a scenario is made from settings in range";
        Settings {
            ring: vec![values::Ring(vm.ring)],
            quota: vec![PerVcpu::each(self.quotas.iter().copied().map(MaybeQuota).collect())],
            vm_quota: self.vm_quota.map(|quota| MaybeQuota(Some(quota))),
            period: vec![values::Period::new(vm.limiter.period).expect(count)],
            limiter: vec![vm.limiter.kind],
            max_stall: Some(values::Span(vm.limiter.max_stall)),
            burst: Some(values::Span(vm.limiter.burst)),
            guest: is_ours
                .then(|| PerVcpu::each(vm.programs.clone()))
                .into_iter()
                .collect(),
            vcpus: vec![settings::VcpuCount::new(vm.vcpus as u64).expect(count)],
            plugged: Some(settings::VcpuCount::new(vm.plugged as u64).expect(count)),
            memory: is_ours.then(|| settings::MemoryMib::new(vm.memory_mib).expect(count)),
            thp: vm.thp,
            duration: Some(values::Span(self.duration)),
            warm_up: Some(values::Span(self.warm_up)),
            at: self.script.clone(),
            replay: vm.replay.clone(),
            repetitions: None,
            seed: Some(vm.seed),
            vmm: vec![vm.vmm.clone()],
            probes: Some(self.probes),
        }
    }

    /// Whether anything is limited from the start.
    pub fn is_limited(&self) -> bool {
        self.vm_quota.is_some() || self.quotas.iter().any(Option::is_some)
    }

    /// What the user should know before it runs, though it can run.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let share_mib = self.vm.memory_mib as f64 / self.vm.vcpus as f64;
        let ring_mib = Pages(self.vm.ring.entries().into()).to_mib();
        if share_mib < ring_mib && self.vm.replay.is_none() {
            notes.push(format!(
                "each vCPU has {share_mib:.0} MiB, less than the {ring_mib:.0} MiB that ring {} covers, so a guest that \
                 writes in order never fills it: `--memory {:.0}` would do",
                self.vm.ring.entries(),
                2.0 * ring_mib * self.vm.vcpus as f64
            ));
        }
        if !self.is_limited() && self.script.is_empty() && self.vm.limiter.kind != LimiterKind::None {
            notes.push("no quota was given, so the guest runs unlimited: `--quota 100` would limit it".to_owned());
        }
        notes
    }
}

/// A warm-up at least as long as `least`, over whose last two thirds, which are measured, a guest with a cycle of its own goes
/// through it as a whole.
pub fn warm_up(least: Duration, cycle: Option<Duration>) -> Duration {
    let Some(cycle) = cycle else {
        return least;
    };
    let measured = least * 2 / 3;
    let cycles = measured.as_nanos().div_ceil(cycle.as_nanos().max(1));
    least.max(cycle.mul_f64(1.5 * cycles as f64))
}

fn absolute(path: &Path) -> Result<PathBuf, ScenarioError> {
    std::path::absolute(path).map_err(|source| {
        ScenarioError::Trace(TraceError::Io {
            operation: "find",
            path: path.to_owned(),
            source,
        })
    })
}

fn single<T: Clone>(flag: &'static str, values: &[T]) -> Result<Option<T>, ScenarioError> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value.clone())),
        _ => Err(ScenarioError::Several {
            flag,
            given: values.len(),
        }),
    }
}

/// Checks that a trace is all that is to run, and says what memory it needs.
fn replayed_memory_mib(settings: &Settings, trace: &Outline, programs: &[Program]) -> Result<u64, ScenarioError> {
    let vcpus = trace.vcpus.len();
    let alone = |flag| ScenarioError::ReplayAlone { flag, vcpus };
    if programs.iter().any(|program| *program != Program::Replay) {
        return Err(alone("--guest"));
    }
    if programs.len() != vcpus {
        return Err(alone("--vcpus"));
    }
    let needed = trace.memory_mib().max(LEAST_MEMORY_MIB);
    match settings.memory.map(settings::MemoryMib::get) {
        Some(given) if given < needed => Err(ScenarioError::Trace(TraceError::Memory {
            path: trace.path.clone(),
            given,
            needed,
            pages: trace.pages(),
        })),
        _ => Ok(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Result<Scenario, ScenarioError> {
        Scenario::new(&toml::from_str(text).expect("valid settings"), 1, End::AtDuration)
    }

    #[test]
    fn a_trace_says_how_many_vcpus_and_how_much_memory() {
        use crate::trace::{Head, Write, Writer};

        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.trace");
        let head = Head {
            tool_version: String::new(),
            pid: 1,
            process: String::new(),
            vcpus: vec![0, 1],
            started_utc: String::new(),
            started_ns: 0,
        };
        let mut writer = Writer::create(&path, &head).expect("a new file");
        // 20 MiB of pages.
        for n in 0..5120_u32 {
            let write = Write {
                at_ns: u64::from(n),
                slot: 0,
                page: u64::from(n) * 3,
            };
            writer.write(n % 2, Some(n % 2), write).expect("it is written");
        }
        writer.finish(0, Duration::from_secs(1)).expect("it is written");

        let with = |more: &str| scenario(&format!("replay = {path:?}\n{more}"));
        let replay = with("").expect("a good trace");
        assert_eq!((replay.vm.vcpus, replay.vm.memory_mib), (2, 20));
        assert_eq!(replay.vm.programs, vec![Program::Replay; 2]);
        let again = Scenario::new(&replay.settings(), 1, End::AtDuration).expect("its own settings");
        assert_eq!(again.vm, replay.vm);
        assert_eq!(with("memory = 64").expect("more than enough").vm.memory_mib, 64);
        for (more, words) in [
            ("memory = 16", "give `--memory 20`"),
            ("vcpus = 3", "leave `--vcpus` out"),
            ("guest = 'random'", "leave `--guest` out"),
            ("vmm = 'attach:/run/qmp'", "runs its own guest: leave `--replay` out"),
        ] {
            let error = with(more).expect_err(more).to_string();
            assert!(error.contains(words), "{more}: {error}");
        }
    }

    #[test]
    fn nothing_said_is_one_unlimited_sequential_writer() {
        let scenario = scenario("").expect("defaults are valid");
        assert_eq!(scenario.vm.programs, [Program::Sequential]);
        assert_eq!(
            (scenario.vm.vcpus, scenario.vm.plugged, scenario.vm.memory_mib),
            (1, 1, 512)
        );
        assert!(!scenario.is_limited());
        assert_eq!(scenario.notes().len(), 1, "it says that nothing is limited");
    }

    #[test]
    fn spelt_out_it_is_the_same_scenario() {
        let scenario = scenario(
            "vcpus = 3\nquota = '500+none'\nvm-quota = 600\nlimiter = 'budget'\nat = ['1s unplug 2', '2s cancel-vm']\n\
             period = '2s'\nburst = '50ms'",
        )
        .expect("valid");
        let again = Scenario::new(&scenario.settings(), scenario.vm.seed, scenario.end).expect("valid");
        assert_eq!(again, scenario);
    }

    #[test]
    fn changes_happen_in_the_order_of_their_times() {
        let scenario = scenario("at = ['30s cancel all', '10s set 500 all']").expect("valid");
        assert_eq!(scenario.script[0].at, Duration::from_secs(10));
        assert_eq!(
            scenario.duration,
            Duration::from_secs(40),
            "a while after the last change"
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = |text| scenario(text).expect_err(text).to_string();
        assert!(error("ring = [1024, 4096]").contains("use `dirtyrig sweep`"));
        assert!(error("quota = '1+2'").contains("give at most 1, or `--vcpus 2`"));
        assert!(error("plugged = 2").contains("more than the guest's 1 vCPUs"));
        assert!(error("at = ['1s unplug 1']").contains("an index below 1"));
        assert!(error("duration = '5s'\nat = ['5s cancel all']").contains("raise `--duration`"));
        assert!(error("limiter = 'none'\nquota = 25").contains("can't hold a quota"));
        assert!(error("limiter = 'none'\nat = ['1s set 25 all']").contains("can't hold a quota"));
        let vm = error("vm-quota = 100");
        assert!(vm.contains("`qemu-7.2` can't hold one quota for the whole VM"), "{vm}");
        assert!(error("limiter = 'dirty-quota'\nat = ['1s set-vm 25']").contains("choose auto-converge, budget"));
        assert!(error("limiter = 'none'\nvm-quota = 25").contains("can't hold a quota"));
        assert!(error("limiter = 'dirty-quota'\nat = ['1s burst 1s']").contains("choose budget, budget-ebpf, ballast"));
        assert!(error("guest = 'replay'").contains("choose another guest"));
        assert!(error("replay = '/nonexistent'").contains("can't read the trace `/nonexistent`"));
    }

    #[test]
    fn windows_and_warm_up_cover_the_guest_s_cycle_and_the_ring_s() {
        let windows = |text: &str| Duration::from_secs_f64(scenario(text).expect(text).settling_rules().window_s);
        let ms = Duration::from_millis;
        assert_eq!(windows("quota = 25\nlimiter = 'budget'"), ms(250));
        let phases = "guest = 'phases:random*2s/idle*500ms'\nquota = 25\n";
        assert_eq!(windows(&format!("{phases}limiter = 'budget'")), ms(2500));
        assert_eq!(
            windows("ring = 65536\nquota = '500+25'\nvcpus = 2\nlimiter = 'ring-sleep'"),
            ms(10_240)
        );
        assert_eq!(windows("ring = 65536\nquota = 25\nlimiter = 'qemu-7.2'"), ms(1000));
        // Two thirds of it are measured: whole cycles.
        let warm_up = |text: &str| scenario(text).expect(text).warm_up;
        assert_eq!(warm_up(phases), Duration::from_millis(3750));
        assert_eq!(
            warm_up("guest = 'phases:random*300ms/idle*100ms'"),
            Duration::from_millis(1800)
        );
        assert_eq!(warm_up("guest = 'random'"), WARM_UP);
        let given = format!("{phases}warm-up = '1s'");
        assert_eq!(warm_up(&given), Duration::from_secs(1));
    }

    #[test]
    fn a_ring_that_the_memory_can_not_fill_is_noted() {
        let scenario = scenario("ring = 65536\nmemory = 128\nquota = 25").expect("valid");
        assert_eq!(scenario.notes().len(), 1);
        assert!(scenario.notes()[0].contains("`--memory 512`"), "{:?}", scenario.notes());
    }
}
