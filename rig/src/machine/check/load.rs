//! Checks of what guests run on: CPUs, memory, and what disturbs them.

use super::Finding;
use crate::machine::{Facts, kvm::Device};

/// A guest fills a ring of 65536 entries only if it has that many pages: 256 MiB; as much again for the rig.
const MEMORY_WANTED_MIB: u64 = 512;

/// A ring of 4096 entries is 16 MiB of pages; below this not even that is worth running.
const MEMORY_LEAST_MIB: u64 = 64;

/// A throttle of the laws is milliseconds long; lateness beyond a millisecond shows in what it achieves.
const LATENESS_BEARABLE_US: f64 = 1000.0;

/// A tick of 10 ms is 1.25 % of the baseline on two CPUs: a few may be chance.
const STEAL_BEARABLE_PCT: f64 = 5.0;

/// CPUs' worth of time: what runs beside the guests competes with them.
const OTHERS_BEARABLE_CPUS: f64 = 0.2;

/// Whether there are CPUs for the vCPUs and the limiter that watches them.
pub(super) fn vcpus(facts: &Facts) -> Finding {
    let cpu = &facts.cpu;
    let mut found = format!("{} of {} CPUs usable", cpu.usable, cpu.online);
    if let Device::Usable(capabilities) = &facts.kvm.device {
        found = format!("up to {} a VM; {found}", capabilities.max_vcpus);
    }
    match cpu.usable {
        0 | 1 => Finding::degraded(
            format!("{found}: vCPU and limiter take turns"),
            "give this machine two CPUs, or this process (taskset -c 0-1 dirtyrig ...)",
        ),
        _ => Finding::ok(found),
    }
}

/// Whether a guest that can fill the ring fits in memory.
pub(super) fn memory(facts: &Facts) -> Finding {
    let memory = &facts.memory;
    let thp = memory.thp_enabled.as_deref().unwrap_or("unknown");
    let mib = |mib: Option<u64>| mib.map_or_else(|| "unknown".to_owned(), |mib| mib.to_string());
    let found = format!(
        "{} of {} MiB available, transparent huge pages: {thp}",
        mib(memory.available_mib),
        mib(memory.total_mib)
    );
    let Some(available) = memory.available_mib else {
        return Finding::degraded(found, "mount /proc, whose `meminfo` tells it");
    };
    match available {
        available if available < MEMORY_LEAST_MIB => {
            Finding::missing(found, format!("free memory: at least {MEMORY_LEAST_MIB} MiB"))
        }
        available if available < MEMORY_WANTED_MIB => Finding::degraded(
            found,
            format!("free memory ({MEMORY_WANTED_MIB} MiB fill a ring of 65536), or use a smaller ring: --ring 4096"),
        ),
        _ => Finding::ok(found),
    }
}

/// Whether guests here are guests of a guest.
pub(super) fn nested(facts: &Facts) -> Finding {
    match &facts.cpu.hypervisor {
        None => Finding::ok("bare metal"),
        Some(hypervisor) => Finding::degraded(
            format!("a guest of {hypervisor}: exits and dirty faults cost more than on hardware"),
            "compare figures with this machine's own only; for those of hardware use bare metal",
        ),
    }
}

/// Whether the CPUs' frequency holds still.
pub(super) fn governor(facts: &Facts) -> Finding {
    let governors = facts.cpu.governors.join(", ");
    match (governors.as_str(), &facts.cpu.hypervisor) {
        ("", Some(_)) => Finding::ok("the host's: this machine does not control its frequency"),
        ("", None) => Finding::ok("none: the frequency is not controlled"),
        ("performance", _) => Finding::ok(governors),
        _ => Finding::degraded(
            format!("{governors}: the frequency follows the load"),
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
    }
}

/// Whether the machine is quiet enough to measure on.
pub(super) fn noise(facts: &Facts) -> Finding {
    let Some(noise) = &facts.noise else {
        return Finding::degraded(
            "can't be measured: no thread could be started",
            "raise the limit: ulimit -u",
        );
    };
    let number = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1}"));
    let found = format!(
        "timers late by {:.0} us (p50), {:.0} us (p99), {:.0} us (max); {} % stolen, {} CPUs busy",
        noise.timer_late_p50_us,
        noise.timer_late_p99_us,
        noise.timer_late_max_us,
        number(noise.steal_pct),
        number(noise.others_cpus)
    );
    if noise.others_cpus > Some(OTHERS_BEARABLE_CPUS) {
        Finding::degraded(found, "stop what else runs here: top shows it")
    } else if noise.steal_pct > Some(STEAL_BEARABLE_PCT) {
        Finding::degraded(found, "ask for dedicated CPUs: the host runs others on these")
    } else if noise.timer_late_p99_us > LATENESS_BEARABLE_US {
        Finding::degraded(
            found,
            "see what delays timers: deep idle states, a busy host, other work of high priority",
        )
    } else {
        Finding::ok(found)
    }
}

/// Whether the binary is one to measure with.
pub(super) fn build(facts: &Facts) -> Finding {
    let versions = &facts.versions;
    // Twelve digits tell commits apart; the manifest has them all.
    let (commit, mark) = versions
        .revision
        .split_once('-')
        .map_or((versions.revision.as_str(), ""), |(commit, _)| (commit, "-dirty"));
    let found = format!(
        "dirtyrig {} ({commit:.12}{mark}), {} build by {:.12}",
        versions.dirtyrig, versions.profile, versions.rustc
    );
    if versions.profile == "release" {
        Finding::ok(found)
    } else {
        Finding::degraded(found, "cargo build --release")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status, fixture::healthy};
    use crate::machine::Facts;

    fn after(change: impl Fn(&mut Facts), check: fn(&Facts) -> Finding) -> Finding {
        let mut facts = healthy();
        change(&mut facts);
        check(&facts)
    }

    #[test]
    fn one_cpu_is_too_few_for_accuracy() {
        assert_eq!(
            after(|facts| facts.cpu.usable = 1, super::vcpus).status,
            Status::Degraded
        );
        assert_eq!(after(|facts| facts.cpu.usable = 2, super::vcpus).status, Status::Ok);
    }

    #[test]
    fn memory_has_two_thresholds() {
        let with = |mib| after(|facts| facts.memory.available_mib = Some(mib), super::memory).status;
        assert_eq!(with(512), Status::Ok);
        assert_eq!(with(511), Status::Degraded);
        assert_eq!(with(64), Status::Degraded);
        assert_eq!(with(63), Status::Missing);
        let unknown = after(|facts| facts.memory.available_mib = None, super::memory);
        assert_eq!(unknown.status, Status::Degraded);
        assert!(unknown.found.starts_with("unknown of"), "{}", unknown.found);
    }

    #[test]
    fn a_guest_is_told_that_it_is_one() {
        let finding = after(|facts| facts.cpu.hypervisor = Some("Hyper-V".to_owned()), super::nested);
        assert_eq!(finding.status, Status::Degraded);
        assert!(finding.found.contains("Hyper-V"));
    }

    #[test]
    fn only_performance_holds_the_frequency() {
        let with = |governors: &[&str]| {
            let governors: Vec<_> = governors.iter().map(ToString::to_string).collect();
            after(|facts| facts.cpu.governors.clone_from(&governors), super::governor)
        };
        let powersave = with(&["powersave"]);
        assert_eq!(powersave.status, Status::Degraded);
        assert!(powersave.remedy.unwrap().starts_with("echo performance"));
        assert_eq!(with(&["performance", "schedutil"]).status, Status::Degraded);
        assert_eq!(with(&["performance"]).status, Status::Ok);
        assert_eq!(with(&[]).status, Status::Ok);
    }

    #[test]
    fn noise_names_its_source() {
        let with = |late, steal, others| {
            after(
                |facts| {
                    let noise = facts.noise.as_mut().unwrap();
                    noise.timer_late_p99_us = late;
                    noise.steal_pct = Some(steal);
                    noise.others_cpus = Some(others);
                },
                super::noise,
            )
        };
        assert_eq!(with(1000.0, 5.0, 0.2).status, Status::Ok);
        assert!(with(1001.0, 0.0, 0.0).remedy.unwrap().contains("idle states"));
        assert!(with(1001.0, 5.1, 0.0).remedy.unwrap().contains("dedicated"));
        assert!(with(1001.0, 5.1, 0.21).remedy.unwrap().contains("top"));
        assert_eq!(after(|facts| facts.noise = None, super::noise).status, Status::Degraded);
        let blind = after(|facts| facts.noise.as_mut().unwrap().steal_pct = None, super::noise);
        assert!(blind.found.contains("unknown % stolen"), "{}", blind.found);
    }

    #[test]
    fn a_debug_build_is_not_for_measuring() {
        let finding = after(|facts| facts.versions.profile = "debug".to_owned(), super::build);
        assert_eq!(finding.status, Status::Degraded);
    }
}
