//! Runs one cell: a target, a limiter, a script, and the sampler that records both.

pub mod cell;
pub mod facts;
pub mod interrupt;
mod join;
pub mod limits;
mod measured;
pub mod own_vm;
mod page_counter;
pub mod probing;
pub mod replay_tables;
mod sampler;
#[cfg(test)]
pub mod simulated;
pub mod sink;
pub mod spec;
pub mod target;

use self::{spec::VmSpec, target::Target};
use crate::{qemu::target::QemuTarget, scenario::vmm::Vmm};

/// The run was ended by ctrl-c or SIGTERM before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Builds the VM that `spec` asks for and starts its plugged vCPUs, unlimited.
pub fn build_target(spec: &VmSpec) -> anyhow::Result<Box<dyn Target>> {
    Ok(match &spec.vmm {
        Vmm::Rig => Box::new(own_vm::OwnVm::build(spec)?),
        Vmm::Qemu { binary } => Box::new(QemuTarget::start(spec, binary.as_deref())?),
        Vmm::Attach { socket } => Box::new(QemuTarget::attach(spec, socket)?),
    })
}
