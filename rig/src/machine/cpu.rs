//! The processor, and whether it is a real one.

use std::{arch::x86_64::__cpuid, collections::BTreeSet, thread};

use serde::{Deserialize, Serialize};

use super::root::Root;

/// The processor as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`, ...
    pub vendor: String,
    /// The marketing name.
    pub model_name: String,
    /// Family, model and stepping tell microarchitectures apart where a cloud hides the name.
    pub family: Option<u32>,
    /// See `family`.
    pub model: Option<u32>,
    /// See `family`.
    pub stepping: Option<u32>,
    /// Revision of the microcode, as the kernel prints it.
    pub microcode: Option<String>,
    /// CPUs that the kernel runs on.
    pub online: usize,
    /// CPUs that this process may use: affinity and cgroup quota taken off.
    pub usable: usize,
    /// The frequency governors in force, each once; empty where the kernel does not control the frequency.
    pub governors: Vec<String>,
    /// Whether two hardware threads share a core; `None` where the kernel does not say.
    pub smt: Option<bool>,
    /// The virtualisation extension that the processor offers.
    pub extension: Option<Extension>,
    /// The hypervisor that this machine is a guest of; `None` on bare metal.
    pub hypervisor: Option<String>,
}

/// What KVM's hardware modules need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Extension {
    /// Intel's.
    Vmx,
    /// AMD's.
    Svm,
}

impl Cpu {
    /// Reads `/proc/cpuinfo` and what `/sys` adds to it.
    pub fn gather(root: &Root) -> Self {
        let cpuinfo = root.text("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpuinfo.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim())
            })
        };
        let text = |name: &str| field(name).unwrap_or("unknown").to_owned();
        let number = |name: &str| field(name).and_then(|value| value.parse().ok());
        let flag = |name: &str| field("flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == name));

        let online = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        Self {
            vendor: text("vendor_id"),
            model_name: text("model name"),
            family: number("cpu family"),
            model: number("model"),
            stepping: number("stepping"),
            microcode: field("microcode").map(str::to_owned),
            online,
            usable: thread::available_parallelism().map_or(online, usize::from),
            governors: governors(root),
            smt: root
                .value::<u8>("/sys/devices/system/cpu/smt/active")
                .map(|active| active != 0),
            extension: if flag("vmx") {
                Some(Extension::Vmx)
            } else if flag("svm") {
                Some(Extension::Svm)
            } else {
                None
            },
            hypervisor: flag("hypervisor").then(hypervisor_name),
        }
    }
}

fn governors(root: &Root) -> Vec<String> {
    const POLICIES: &str = "/sys/devices/system/cpu/cpufreq";
    let distinct: BTreeSet<String> = root
        .names(POLICIES)
        .iter()
        .filter_map(|policy| root.text(format!("{POLICIES}/{policy}/scaling_governor")))
        .collect();
    distinct.into_iter().collect()
}

/// The name in the CPUID leaf `0x4000_0000`, which hypervisors have agreed to sign; only meaningful under one.
fn hypervisor_name() -> String {
    let leaf = __cpuid(0x4000_0000);
    let signature: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    name_of_signature(&signature)
}

fn name_of_signature(signature: &[u8]) -> String {
    let signature = String::from_utf8_lossy(signature);
    match signature.trim_matches(['\0', ' ']) {
        "" => "unknown",
        "KVMKVMKVM" => "KVM",
        "Microsoft Hv" => "Hyper-V",
        "VMwareVMware" => "VMware",
        "XenVMMXenVMM" => "Xen",
        "TCGTCGTCGTCG" => "QEMU TCG",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    const TWO_CPUS: &str = "\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9654 96-Core Processor
stepping\t: 1
microcode\t: 0xa101148
flags\t\t: fpu svm sse2

processor\t: 1
vendor_id\t: AuthenticAMD
model\t\t: 99
";

    #[test]
    fn reads_the_first_processor_and_counts_all() {
        let tree = Tree::new(&[
            ("/proc/cpuinfo", TWO_CPUS),
            ("/sys/devices/system/cpu/smt/active", "1\n"),
            (
                "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
                "schedutil\n",
            ),
            (
                "/sys/devices/system/cpu/cpufreq/policy1/scaling_governor",
                "performance\n",
            ),
            (
                "/sys/devices/system/cpu/cpufreq/policy2/scaling_governor",
                "schedutil\n",
            ),
        ]);
        let cpu = Cpu::gather(&tree.root());
        assert_eq!(
            (cpu.vendor.as_str(), cpu.family, cpu.model, cpu.stepping),
            ("AuthenticAMD", Some(25), Some(17), Some(1))
        );
        assert_eq!(cpu.model_name, "AMD EPYC 9654 96-Core Processor");
        assert_eq!(cpu.microcode.as_deref(), Some("0xa101148"));
        assert_eq!((cpu.online, cpu.smt), (2, Some(true)));
        assert_eq!(cpu.extension, Some(Extension::Svm));
        assert_eq!(cpu.hypervisor, None);
        assert_eq!(cpu.governors, ["performance", "schedutil"]);
    }

    #[test]
    fn an_empty_tree_is_unknown_rather_than_an_error() {
        let cpu = Cpu::gather(&Tree::new(&[]).root());
        assert_eq!((cpu.vendor.as_str(), cpu.online, cpu.smt), ("unknown", 0, None));
        assert!(cpu.governors.is_empty());
    }

    #[test]
    fn a_flag_is_a_whole_word() {
        let tree = Tree::new(&[("/proc/cpuinfo", "flags : fpu vmx_like hypervisor\n")]);
        let cpu = Cpu::gather(&tree.root());
        assert_eq!(cpu.extension, None);
        assert!(cpu.hypervisor.is_some());
    }

    #[test]
    fn names_hypervisors() {
        assert_eq!(name_of_signature(b"KVMKVMKVM\0\0\0"), "KVM");
        assert_eq!(name_of_signature(b"Microsoft Hv"), "Hyper-V");
        assert_eq!(name_of_signature(b"bhyve bhyve "), "bhyve bhyve");
        assert_eq!(name_of_signature(&[0; 12]), "unknown");
    }
}
