//! The kernel, and the choices made at boot that move a measurement.

use serde::{Deserialize, Serialize};

use super::root::Root;

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// As `uname -r`.
    pub release: String,
    /// As `uname -v`: build, preemption model.
    pub version: String,
    /// The words of the command line that bear on timing, memory or KVM. The others are left out: a recording is
    /// passed around, and command lines hold addresses and secrets.
    pub cmdline: Vec<String>,
    /// `none`, `integrity` or `confidentiality`; `None` where the kernel does not say.
    pub lockdown: Option<String>,
    /// What the kernel takes its time from.
    pub clocksource: Option<String>,
    /// How late the kernel may wake this process on purpose, to gather timers (50,000 ns unless changed): a part of
    /// every sleep's lateness.
    pub timer_slack_ns: Option<u64>,
}

/// Names on the command line that matter, besides those that start with `kvm` or `nested`.
const MATTERS: &[&str] = &[
    "amd_pstate",
    "clocksource",
    "cpuidle.governor",
    "cpuidle.off",
    "cpuidle_haltpoll.force",
    "default_hugepagesz",
    "haltpoll.guest_halt_poll_ns",
    "highres",
    "hugepages",
    "hugepagesz",
    "idle",
    "intel_idle.max_cstate",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "lockdown",
    "maxcpus",
    "mitigations",
    "nohz",
    "nohz_full",
    "nopti",
    "nosmt",
    "nr_cpus",
    "preempt",
    "processor.max_cstate",
    "pti",
    "rcu_nocbs",
    "skew_tick",
    "spectre_v2",
    "threadirqs",
    "transparent_hugepage",
    "tsc",
];

impl Kernel {
    /// Reads `/proc` and `/sys`.
    pub fn gather(root: &Root) -> Self {
        let text = |path: &str| root.text(path).unwrap_or_else(|| "unknown".to_owned());
        Self {
            release: text("/proc/sys/kernel/osrelease"),
            version: text("/proc/sys/kernel/version"),
            cmdline: words_that_matter(&root.text("/proc/cmdline").unwrap_or_default()),
            lockdown: root.choice("/sys/kernel/security/lockdown"),
            clocksource: root.text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            timer_slack_ns: root.value("/proc/self/timerslack_ns"),
        }
    }
}

fn words_that_matter(cmdline: &str) -> Vec<String> {
    cmdline
        .split_whitespace()
        // What follows is meant for init.
        .take_while(|word| *word != "--")
        .filter(|word| {
            let name = word.split_once('=').map_or(*word, |(name, _)| name);
            name.starts_with("kvm") || name.starts_with("nested") || MATTERS.contains(&name)
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    #[test]
    fn keeps_only_the_words_that_matter() {
        let words = words_that_matter(
            "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet mitigations=auto,nosmt kvm-intel.pml=0 kvm.halt_poll_ns=0 nosmt \
             secret.token=abc idle=poll -- isolcpus=3",
        );
        assert_eq!(
            words,
            [
                "mitigations=auto,nosmt",
                "kvm-intel.pml=0",
                "kvm.halt_poll_ns=0",
                "nosmt",
                "idle=poll"
            ]
        );
    }

    #[test]
    fn reads_the_lockdown_in_force() {
        let tree = Tree::new(&[
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("/proc/sys/kernel/osrelease", "6.1.0-40-amd64\n"),
            ("/proc/self/timerslack_ns", "50000\n"),
        ]);
        let kernel = Kernel::gather(&tree.root());
        assert_eq!(kernel.lockdown.as_deref(), Some("integrity"));
        assert_eq!(kernel.release, "6.1.0-40-amd64");
        assert_eq!(kernel.version, "unknown");
        assert_eq!(kernel.timer_slack_ns, Some(50_000));
    }
}
