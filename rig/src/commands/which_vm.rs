//! Which of the VMs on this host is meant: by its process, its name or its UUID.

use clap_complete::engine::ArgValueCandidates;
use dirtyrig_probes::identity::{Vm, find_vm, vm_of};

use crate::commands::complete;

/// One VM.
#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct WhichVm {
    /// Process of the VMM
    #[arg(long, value_name = "PID", add = ArgValueCandidates::new(complete::pids))]
    pid: Option<u32>,

    /// The VM by its name (QEMU's `-name`, libvirt's domain) or its UUID
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::names))]
    vm: Option<String>,
}

impl WhichVm {
    /// Finds it, or says which there are.
    pub(super) fn find(&self) -> anyhow::Result<Vm> {
        match (self.pid, &self.vm) {
            (Some(pid), _) => Ok(vm_of(pid)),
            (None, Some(name)) => Ok(find_vm(name)?),
            (None, None) => unreachable!("clap requires one of the two"),
        }
    }
}
