//! Judges the facts: one check, one small function, one line of [`CHECKS`].

pub(super) mod hypervisor;
mod load;
mod observer;

use serde::Serialize;

use super::Facts;

/// How a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, with less accuracy or reach than elsewhere.
    Degraded,
    /// What depends on it can't be done.
    Missing,
}

/// What was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How the requirement is met.
    pub status: Status,
    /// What was found, in one line.
    pub found: String,
    /// What to do, a command where one does it; `None` if all is well or nothing can be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn degraded(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Degraded,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn missing(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Missing,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// One requirement.
#[derive(Debug)]
pub struct Check {
    /// One short word or two.
    pub name: &'static str,
    /// Whether guests can't be run and limited without it.
    pub required: bool,
    /// Judges it.
    pub look: fn(&Facts) -> Finding,
}

/// Every requirement, in the order in which one would mend them.
pub const CHECKS: &[Check] = &[
    required("kvm", |facts| hypervisor::kvm(&facts.kvm, &facts.cpu)),
    required("dirty ring", |facts| hypervisor::dirty_ring(&facts.kvm, &facts.kernel)),
    required("vcpus", load::vcpus),
    required("memory", load::memory),
    optional("pml", |facts| hypervisor::pml(&facts.kvm)),
    optional("nested", load::nested),
    optional("governor", load::governor),
    optional("noise", load::noise),
    optional("build", load::build),
    optional("pid namespace", observer::pid_namespace),
    optional("tracefs", observer::tracefs),
    optional("btf", observer::btf),
    optional("bpf", observer::bpf),
    optional("ring", |facts| observer::page_source(facts, "ring")),
    optional("bitmap by fentry", |facts| {
        observer::page_source(facts, "bitmap by fentry")
    }),
    optional("bitmap by kprobe", |facts| {
        observer::page_source(facts, "bitmap by kprobe")
    }),
    optional("qemu", observer::qemu),
];

const fn required(name: &'static str, look: fn(&Facts) -> Finding) -> Check {
    Check {
        name,
        required: true,
        look,
    }
}

const fn optional(name: &'static str, look: fn(&Facts) -> Finding) -> Check {
    Check {
        name,
        required: false,
        look,
    }
}

/// A check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Of the check.
    pub name: &'static str,
    /// Whether guests can't be run and limited without it.
    pub required: bool,
    /// What it found.
    #[serde(flatten)]
    pub finding: Finding,
}

impl Checked {
    /// Whether this alone keeps the rig from running guests.
    pub fn is_fatal(&self) -> bool {
        self.required && self.finding.status == Status::Missing
    }
}

/// What the probes rest on, in the order in which one would mend it.
const UNDER_PROBES: [&str; 4] = ["pid namespace", "bpf", "tracefs", "ring"];

/// The remedy of what keeps the probes from working, by the checks of what they rest on.
pub fn remedy_of_probes(checks: &[Checked]) -> Option<&str> {
    let mut under = UNDER_PROBES
        .iter()
        .filter_map(|name| checks.iter().find(|check| check.name == *name));
    under.find_map(|check| check.finding.remedy.as_deref())
}

/// Makes every check.
pub fn all(facts: &Facts) -> Vec<Checked> {
    CHECKS
        .iter()
        .map(|check| Checked {
            name: check.name,
            required: check.required,
            finding: (check.look)(facts),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A machine with nothing to complain about, for tests to take something away from.

    use crate::machine::{
        Facts,
        bpf::{Bpf, Btf, Load},
        cpu::{Cpu, Extension},
        kernel::Kernel,
        kvm::{Capabilities, Device, Kvm},
        memory::Memory,
        noise::NoiseReport,
        pid_namespace::PidNamespace,
        qemu::Qemu,
        sources::PageSource,
        tracefs::Tracefs,
        versions::Versions,
    };
    use dirtyrig_probes::KvmEvent;

    pub(crate) fn healthy() -> Facts {
        Facts {
            versions: Versions {
                dirtyrig: "0.1.0".to_owned(),
                revision: "0123456789abcdef0123456789abcdef01234567".to_owned(),
                rustc: "rustc 1.95.0".to_owned(),
                profile: "release".to_owned(),
            },
            cpu: Cpu {
                vendor: "GenuineIntel".to_owned(),
                model_name: "Intel(R) Xeon(R) Gold 6338N".to_owned(),
                family: Some(6),
                model: Some(106),
                stepping: Some(6),
                microcode: Some("0xd0003d1".to_owned()),
                online: 64,
                usable: 64,
                governors: vec!["performance".to_owned()],
                smt: Some(true),
                extension: Some(Extension::Vmx),
                hypervisor: None,
            },
            kernel: Kernel {
                release: "6.12.41-amd64".to_owned(),
                version: "#1 SMP PREEMPT_DYNAMIC".to_owned(),
                cmdline: vec![],
                lockdown: Some("none".to_owned()),
                clocksource: Some("tsc".to_owned()),
                timer_slack_ns: Some(50_000),
            },
            kvm: Kvm {
                module: Some("kvm_intel".to_owned()),
                parameters: [("kvm_intel.pml".to_owned(), "Y".to_owned())].into(),
                device: Device::Usable(Capabilities {
                    api_version: 12,
                    dirty_ring_entries: 65_536,
                    dirty_ring_acq_rel: true,
                    max_vcpus: 1024,
                    recommended_vcpus: 64,
                    memory_slots: 32764,
                }),
            },
            memory: Memory {
                total_mib: Some(262_144),
                available_mib: Some(250_000),
                thp_enabled: Some("madvise".to_owned()),
                thp_defrag: Some("madvise".to_owned()),
                hugepages_total: Some(0),
                hugepages_free: Some(0),
                hugepage_kib: Some(2048),
            },
            noise: Some(NoiseReport {
                span_s: 0.4,
                samples: 370,
                timer_late_p50_us: 58.0,
                timer_late_p99_us: 90.0,
                timer_late_max_us: 140.0,
                steal_pct: Some(0.0),
                steal_worst_cpu_pct: Some(0.0),
                others_cpus: Some(0.02),
                idle_cpus: Some(63.9),
            }),
            pid_namespace: PidNamespace::Initial,
            tracefs: Tracefs::Readable {
                at: "/sys/kernel/tracing".into(),
                events: KvmEvent::ALL.map(|event| event.to_string()).to_vec(),
            },
            btf: Btf {
                vmlinux_bytes: Some(5_519_912),
            },
            bpf: Bpf {
                cap_bpf: true,
                cap_perfmon: true,
                unprivileged_disabled: Some(2),
                perf_event_paranoid: Some(2),
                jit_enable: Some(1),
                load: Load::Works,
            },
            page_sources: ["ring", "bitmap by fentry", "bitmap by kprobe"]
                .map(|name| PageSource {
                    name: name.to_owned(),
                    refused: None,
                })
                .into(),
            qemu: Some(Qemu {
                path: "/usr/bin/qemu-system-x86_64".into(),
                version: Some("10.0.2".to_owned()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wrong_with_a_healthy_machine() {
        for checked in all(&fixture::healthy()) {
            assert_eq!(checked.finding.status, Status::Ok, "{checked:?}");
            assert_eq!(checked.finding.remedy, None, "{checked:?}");
        }
    }

    #[test]
    fn only_a_required_check_that_is_missing_is_fatal() {
        let checked = |required, status| Checked {
            name: "x",
            required,
            finding: Finding {
                status,
                found: String::new(),
                remedy: None,
            },
        };
        assert!(checked(true, Status::Missing).is_fatal());
        assert!(!checked(true, Status::Degraded).is_fatal());
        assert!(!checked(false, Status::Missing).is_fatal());
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }
}
