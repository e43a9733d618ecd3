//! Facts of the machine: what it is, what it can do, and how much it disturbs.
//!
//! [`Facts::gather`] reads everything once; a recording's manifest keeps it whole. [`check`] judges the facts, and
//! [`require_kvm`] is the same judgement for a command that can't go on without KVM.

pub mod bpf;
pub mod check;
pub mod cpu;
pub mod kernel;
pub mod kvm;
pub mod memory;
pub mod noise;
pub mod pid_namespace;
pub mod qemu;
mod require;
pub mod root;
pub mod sources;
pub mod tracefs;
pub mod versions;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use bpf::{Bpf, Btf};
use cpu::Cpu;
use kernel::Kernel;
use kvm::Kvm;
use memory::Memory;
use noise::NoiseReport;
use pid_namespace::PidNamespace;
use qemu::Qemu;
use root::Root;
use sources::PageSource;
use tracefs::Tracefs;
use versions::Versions;

pub use require::{MissingRequirement, require_kvm};

/// Everything about the machine that a figure measured on it depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// This program.
    pub versions: Versions,
    /// The processor.
    pub cpu: Cpu,
    /// The kernel.
    pub kernel: Kernel,
    /// KVM.
    pub kvm: Kvm,
    /// Memory.
    pub memory: Memory,
    /// The machine's noise while nothing was run; `None` where no thread could be started.
    pub noise: Option<NoiseReport>,
    /// The PID namespace; unknown in recordings older than this fact.
    #[serde(default)]
    pub pid_namespace: PidNamespace,
    /// tracefs.
    pub tracefs: Tracefs,
    /// Type information of the kernel.
    pub btf: Btf,
    /// eBPF.
    pub bpf: Bpf,
    /// Where dirtied pages can be told from; empty in what earlier versions recorded.
    #[serde(default)]
    pub page_sources: Vec<PageSource>,
    /// The QEMU on the path.
    pub qemu: Option<Qemu>,
}

impl Facts {
    /// Reads them all. Takes about half a second, most of it the measurement of noise.
    pub fn gather() -> Self {
        let root = Root::system();
        // First, so that nothing else of ours disturbs it.
        let noise = noise::baseline().ok();
        let cpu = Cpu::gather(&root);
        Self {
            versions: Versions::gather(),
            kernel: Kernel::gather(&root),
            kvm: Kvm::gather(&root, &cpu),
            cpu,
            memory: Memory::gather(&root),
            noise,
            pid_namespace: PidNamespace::gather(),
            tracefs: Tracefs::gather(),
            btf: Btf::gather(&root),
            bpf: Bpf::gather(&root),
            page_sources: sources::gather(),
            qemu: Qemu::gather(),
        }
    }

    /// As the manifest of a recording keeps them.
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("facts are plain fields with string keys, not {other:?}"),
        }
    }
}
