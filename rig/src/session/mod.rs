//! From what a command was asked for to what runs.

use crate::{
    engine::{own_vm::OwnVm, target::Target},
    qemu::target::QemuTarget,
    scenario::{spec::VmSpec, vmm::Vmm},
};

/// Builds the VM that `spec` asks for and starts its plugged vCPUs, unlimited.
pub fn build_target(spec: &VmSpec) -> anyhow::Result<Box<dyn Target>> {
    Ok(match &spec.vmm {
        Vmm::Rig => Box::new(OwnVm::build(spec)?),
        Vmm::Qemu { binary } => Box::new(QemuTarget::start(spec, binary.as_deref())?),
        Vmm::Attach { socket } => Box::new(QemuTarget::attach(spec, socket)?),
    })
}
