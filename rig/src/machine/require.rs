//! What a command asks before it starts guests.

use super::{
    check::{Finding, Status, hypervisor},
    cpu::Cpu,
    kernel::Kernel,
    kvm::Kvm,
    root::Root,
};

/// The machine lacks what a command can't do without: exit code [`MISSING`](crate::commands::exit::MISSING).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{requirement}: {found}\n  remedy: {remedy}\n  `dirtyrig doctor` shows all requirements")]
pub struct MissingRequirement {
    /// Name of the check.
    pub requirement: &'static str,
    /// What was found instead.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

impl MissingRequirement {
    /// A finding that keeps one from going on, as an error.
    fn of(requirement: &'static str, finding: Finding) -> Result<(), Self> {
        match finding {
            Finding {
                status: Status::Missing,
                found,
                remedy,
            } => Err(Self {
                requirement,
                found,
                remedy: remedy.unwrap_or_else(|| "none is known".to_owned()),
            }),
            _ => Ok(()),
        }
    }
}

/// Makes sure that guests with a dirty ring can be run. Takes about a millisecond.
pub fn require_kvm() -> Result<(), MissingRequirement> {
    require_kvm_in(&Root::system())
}

fn require_kvm_in(root: &Root) -> Result<(), MissingRequirement> {
    let cpu = Cpu::gather(root);
    let kvm = Kvm::gather(root, &cpu);
    MissingRequirement::of("kvm", hypervisor::kvm(&kvm, &cpu))?;
    MissingRequirement::of("dirty ring", hypervisor::dirty_ring(&kvm, &Kernel::gather(root)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    #[test]
    fn a_missing_device_is_said_with_its_remedy() {
        let tree = Tree::new(&[("/proc/cpuinfo", "flags : fpu svm\n")]);
        let error = require_kvm_in(&tree.root()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kvm: no /dev/kvm: kvm_amd is not loaded\n  remedy: sudo modprobe kvm_amd\n  `dirtyrig doctor` shows all \
             requirements"
        );
    }

    #[test]
    fn what_is_only_degraded_goes_on() {
        let finding = |status| Finding {
            status,
            found: "less".to_owned(),
            remedy: None,
        };
        assert_eq!(MissingRequirement::of("x", finding(Status::Degraded)), Ok(()));
        assert!(MissingRequirement::of("x", finding(Status::Missing)).is_err());
    }
}
