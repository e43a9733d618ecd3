//! Whether eBPF programs can be loaded, and by whose leave.

use std::error::Error as _;

use aya::{programs::ProgramType, sys::is_program_supported};
use serde::{Deserialize, Serialize};

use super::root::Root;

/// Bits of the capability masks in `/proc/self/status`: numbers of the kernel's ABI.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The type information that the kernel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Btf {
    /// Size of `/sys/kernel/btf/vmlinux`, `None` where it is absent.
    pub vmlinux_bytes: Option<u64>,
}

impl Btf {
    /// Looks for the kernel's own type information.
    pub fn gather(root: &Root) -> Self {
        let metadata = root.path("/sys/kernel/btf/vmlinux").metadata();
        Self {
            vmlinux_bytes: metadata.ok().map(|metadata| metadata.len()),
        }
    }
}

/// What this process may do with eBPF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bpf {
    /// Holds `CAP_BPF`, or `CAP_SYS_ADMIN` which stands for it.
    pub cap_bpf: bool,
    /// Holds `CAP_PERFMON`, or `CAP_SYS_ADMIN` which stands for it.
    pub cap_perfmon: bool,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_disabled: Option<u32>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i32>,
    /// `net.core.bpf_jit_enable`, which only root may read: 0 means that programs are interpreted.
    pub jit_enable: Option<u32>,
    /// What came of loading a program of two instructions.
    pub load: Load,
}

/// What came of loading a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Load {
    /// The kernel took it.
    Works,
    /// The kernel knows no programs on raw tracepoints.
    Unsupported,
    /// The kernel refused it.
    Refused {
        /// Why, in its words.
        error: String,
    },
}

impl Bpf {
    /// Reads the privileges and tries them.
    pub fn gather(root: &Root) -> Self {
        let capabilities = effective_capabilities(&root.text("/proc/self/status").unwrap_or_default());
        Self {
            cap_bpf: holds(capabilities, CAP_BPF),
            cap_perfmon: holds(capabilities, CAP_PERFMON),
            unprivileged_disabled: root.value("/proc/sys/kernel/unprivileged_bpf_disabled"),
            perf_event_paranoid: root.value("/proc/sys/kernel/perf_event_paranoid"),
            jit_enable: root.value("/proc/sys/net/core/bpf_jit_enable"),
            load: try_load(),
        }
    }
}

/// Privileges can be worth less than they look (a user namespace, a security module), so the kernel is asked.
fn try_load() -> Load {
    match is_program_supported(ProgramType::RawTracePoint) {
        Ok(true) => Load::Works,
        Ok(false) => Load::Unsupported,
        Err(error) => Load::Refused {
            error: error.source().map_or_else(|| error.to_string(), ToString::to_string),
        },
    }
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0)
}

/// Whether a mask has the capability, or the one that stands for all of them.
fn holds(capabilities: u64, bit: u32) -> bool {
    capabilities & (1 << bit | 1 << CAP_SYS_ADMIN) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_capabilities_apart() {
        let of = |status: &str| {
            let capabilities = effective_capabilities(status);
            (holds(capabilities, CAP_BPF), holds(capabilities, CAP_PERFMON))
        };
        assert_eq!(
            of("CapPrm:\tffffffffffffffff\nCapEff:\t0000000000000000\n"),
            (false, false)
        );
        assert_eq!(of("CapEff:\t0000008000000000\n"), (true, false));
        assert_eq!(of("CapEff:\t0000004000000000\n"), (false, true));
        assert_eq!(of("CapEff:\t0000000000200000\n"), (true, true));
        assert_eq!(of(""), (false, false));
    }
}
