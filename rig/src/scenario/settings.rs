//! The settings of an experiment: the flags of `run`, `sweep` and `floor` and the keys of their TOML files, one struct so
//! that names, meaning and errors are the same everywhere.

use std::path::PathBuf;

use clap::Args;
use dirtyrig_guests::Program;
use dirtyrig_limiter::law::LimiterKind;
use serde::{Deserialize, Serialize};

use super::{
    per_vcpu::{MaybeQuota, PerVcpu},
    probe_mode::ProbeMode,
    script::Event,
    text,
    values::{Count, Period, Ring, Span},
    vmm::Vmm,
};

/// How many vCPUs a guest may have.
pub type VcpuCount = Count<1, 64>;
/// MiB of guest memory.
pub type MemoryMib = Count<16, 1_048_576>;
/// How often a cell is repeated.
pub type Repetitions = Count<1, 1000>;

/// What was asked for; nothing where nothing was said. The first six are dimensions: each may list several values.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[command(next_help_heading = "Experiment")]
pub struct Settings {
    /// Entries of each vCPU's dirty ring: a power of two from 1024 to 65536 [default: 4096]
    #[arg(long, value_name = "ENTRIES", value_delimiter = ',', allow_negative_numbers = true)]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub ring: Vec<Ring>,

    /// Limit of each vCPU in MiB/s, or `none`; `500+none` gives vCPU 0 500 and the others none [default: none]
    #[arg(long, value_name = "MIB_S", value_delimiter = ',', allow_negative_numbers = true)]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<PerVcpu<MaybeQuota>>,

    /// Limit of all vCPUs together in MiB/s, beside those of each, or `none`; for limiters that can hold one [default: none]
    #[arg(long, value_name = "MIB_S", allow_negative_numbers = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub vm_quota: Option<MaybeQuota>,

    /// How often the limiter measures and adjusts, from 100ms to 60s [default: 1s]
    #[arg(long, value_name = "TIME", value_delimiter = ',', allow_hyphen_values = true)]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub period: Vec<Period>,

    /// What limits the vCPUs, such as qemu-v11, qemu-7.2, qemu-10 or none [default: qemu-7.2]
    #[arg(long, value_name = "NAME", value_delimiter = ',', long_help = limiters())]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub limiter: Vec<LimiterKind>,

    /// The longest pause that a budget limiter may ask for at once [default: 5ms]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub max_stall: Option<Span>,

    /// The time's worth of quota that a budget limiter lets a guest save up while it writes less [default: 1s]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub burst: Option<Span>,

    /// What the vCPUs execute; `sequential+reader` gives vCPU 0 the first and the others the second [default: sequential]
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',', long_help = guests())]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub guest: Vec<PerVcpu<Program>>,

    /// How many vCPUs the guest can have [default: 1]
    #[arg(long, value_name = "N", value_delimiter = ',', allow_negative_numbers = true)]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub vcpus: Vec<VcpuCount>,

    /// How many of them are plugged from the start [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub plugged: Option<VcpuCount>,

    /// Guest memory in MiB, shared out evenly between the vCPUs [default: 512 per vCPU]
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryMib>,

    /// Back the guest's memory with transparent huge pages
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub thp: bool,

    /// How long a run lasts, from the limit's start; the most that a cell of a sweep may take
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,

    /// How long the guest runs unlimited before, to measure that rate [default: 1500ms]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Span>,

    /// A change in time, such as '10s set 500 all', '30s cancel 0', '40s unplug 1'; may be given several times
    #[arg(long, value_name = "CHANGE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Event>,

    /// Dirty trace that the guest repeats, page by page with its timing, over and over: `observe --trace` records one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "vcpus"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<PathBuf>,

    /// How often each cell is measured [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub repetitions: Option<Repetitions>,

    /// Seed of the guests' random choices and of a sweep's order; drawn and recorded where not given
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,

    /// Which VMM runs the guest: rig, qemu[:BINARY], or attach:QMP-SOCKET for a QEMU that runs already [default: rig]
    // The brackets are the help's: what may be left out.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, value_name = "VMM", value_delimiter = ',', long_help = vmms())]
    #[serde(with = "text::many", skip_serializing_if = "Vec::is_empty")]
    pub vmm: Vec<Vmm>,

    /// Whether eBPF probes watch from inside the kernel: auto (where this machine allows it), off, require [default: auto]
    #[arg(long, value_name = "MODE")]
    #[serde(with = "text::one", skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeMode>,
}

fn vmms() -> String {
    const VMMS: [(&str, &str); 4] = [
        ("rig", "the rig's own VM, which every limiter works with"),
        (
            "qemu",
            "the qemu-system-x86_64 along PATH, started with the same guest, limited by its own law",
        ),
        ("qemu:BINARY", "another QEMU, by its path"),
        (
            "attach:QMP-SOCKET",
            "a QEMU that runs already, whatever its guest; limits set are cancelled at the end",
        ),
    ];
    format!("Which VMM runs the guest [default: rig]:\n{}", listed(&VMMS))
}

fn limiters() -> String {
    let names = LimiterKind::ALL.map(|kind| (kind.name(), kind.description()));
    format!("What limits the vCPUs [default: qemu-7.2]:\n{}", listed(&names))
}

fn guests() -> String {
    format!(
        "What the vCPUs execute; `sequential+reader` gives vCPU 0 the first and the others the second [default: \
         sequential]:\n{}",
        listed(&Program::NAMES)
    )
}

fn listed(names: &[(&str, &str)]) -> String {
    let lines: Vec<String> = names.iter().map(|(name, about)| format!("- {name}: {about}")).collect();
    lines.join("\n")
}

impl Settings {
    /// These settings, and where they say nothing, those of `base`.
    #[must_use]
    pub fn or(self, base: Self) -> Self {
        fn list<T>(mine: Vec<T>, base: Vec<T>) -> Vec<T> {
            if mine.is_empty() { base } else { mine }
        }
        Self {
            ring: list(self.ring, base.ring),
            quota: list(self.quota, base.quota),
            vm_quota: self.vm_quota.or(base.vm_quota),
            period: list(self.period, base.period),
            limiter: list(self.limiter, base.limiter),
            max_stall: self.max_stall.or(base.max_stall),
            burst: self.burst.or(base.burst),
            guest: list(self.guest, base.guest),
            vcpus: list(self.vcpus, base.vcpus),
            plugged: self.plugged.or(base.plugged),
            memory: self.memory.or(base.memory),
            thp: self.thp || base.thp,
            duration: self.duration.or(base.duration),
            warm_up: self.warm_up.or(base.warm_up),
            at: list(self.at, base.at),
            replay: self.replay.or(base.replay),
            repetitions: self.repetitions.or(base.repetitions),
            seed: self.seed.or(base.seed),
            vmm: list(self.vmm, base.vmm),
            probes: self.probes.or(base.probes),
        }
    }

    /// Whether anything was said of a dimension.
    pub fn has_dimensions(&self) -> bool {
        let Self {
            ring,
            quota,
            period,
            limiter,
            guest,
            vcpus,
            vmm,
            ..
        } = self;
        !(ring.is_empty()
            && quota.is_empty()
            && period.is_empty()
            && limiter.is_empty()
            && guest.is_empty()
            && vcpus.is_empty()
            && vmm.is_empty())
    }

    /// One setting for each combination of the dimensions, in the order of the lists, the ring varying slowest. A
    /// dimension of which nothing was said stays unsaid.
    pub fn combinations(&self) -> Vec<Self> {
        fn each<T: Clone>(
            combinations: Vec<Settings>,
            values: &[T],
            set: impl Fn(&mut Settings, Vec<T>),
        ) -> Vec<Settings> {
            if values.is_empty() {
                return combinations;
            }
            let one = |settings: &Settings, value: &T| {
                let mut settings = settings.clone();
                set(&mut settings, vec![value.clone()]);
                settings
            };
            combinations
                .iter()
                .flat_map(|settings| values.iter().map(|value| one(settings, value)))
                .collect()
        }
        let all = vec![self.clone()];
        let all = each(all, &self.ring, |settings, value| settings.ring = value);
        let all = each(all, &self.quota, |settings, value| settings.quota = value);
        let all = each(all, &self.period, |settings, value| settings.period = value);
        let all = each(all, &self.limiter, |settings, value| settings.limiter = value);
        let all = each(all, &self.guest, |settings, value| settings.guest = value);
        let all = each(all, &self.vcpus, |settings, value| settings.vcpus = value);
        each(all, &self.vmm, |settings, value| settings.vmm = value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Settings {
        toml::from_str(text).expect("valid settings")
    }

    #[test]
    fn combinations_are_the_product_of_the_lists() {
        let settings = read("ring = [4096, 65536]\nquota = [25, 500, 'none']\nlimiter = 'qemu-10'");
        let combinations = settings.combinations();
        assert_eq!(combinations.len(), 6);
        assert!(
            combinations
                .iter()
                .all(|one| one.ring.len() == 1 && one.quota.len() == 1 && one.period.is_empty())
        );
        assert_eq!(combinations[0], read("ring = 4096\nquota = 25\nlimiter = 'qemu-10'"));
        assert_eq!(
            combinations[5],
            read("ring = 65536\nquota = 'none'\nlimiter = 'qemu-10'")
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let merged = read("ring = 1024").or(read("ring = [4096, 8192]\nperiod = '2s'\nthp = true"));
        assert_eq!(merged, read("ring = 1024\nperiod = '2s'\nthp = true"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let settings = read(
            "ring = [4096]\nquota = ['500+none', 0.5]\nvm-quota = 600\nperiod = '500ms'\nburst = '250ms'\nguest = 'hot-cold:10/90+reader'\nvcpus = 2\n\
             plugged = 1\nmemory = 1024\nduration = '1m'\nat = ['10s set 500 all']\nseed = 7\nrepetitions = 3\nprobes = 'require'",
        );
        assert_eq!(read(&toml::to_string(&settings).expect("valid TOML")), settings);
    }
}
