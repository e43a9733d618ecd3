//! KVM: the module that drives it, the device, and what it is able to do.

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
};

use dirtyrig_ring::RingCapability;
use kvm_ioctls::Kvm as KvmDevice;
use nix::{
    errno::Errno,
    unistd::{Gid, Group},
};
use serde::{Deserialize, Serialize};

use super::{
    cpu::{Cpu, Extension},
    root::Root,
};

/// `KVM_CAP_DIRTY_LOG_RING_ACQ_REL` (kernel 6.1): a number of the kernel's ABI.
const CAP_DIRTY_LOG_RING_ACQ_REL: u32 = 223;

/// The only version of the interface that was ever released.
const API_VERSION: i32 = 12;

/// KVM on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// The module that runs guests: `kvm_intel`, `kvm_amd` or `kvm_pvm`.
    pub module: Option<String>,
    /// Every parameter of `kvm` and of that module, as `module.parameter`.
    pub parameters: BTreeMap<String, String>,
    /// The device.
    pub device: Device,
}

/// What came of opening `/dev/kvm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Device {
    /// It opens, and a VM could be created.
    Usable(Capabilities),
    /// There is none, or no module answers it.
    Absent,
    /// It may not be opened by this user.
    Denied {
        /// Name of the group that owns it.
        group: String,
        /// Whether that group may read and write it.
        group_may_use: bool,
    },
    /// A container's device filter forbids it, to root as well.
    Filtered,
    /// It opens and then fails.
    Broken {
        /// The step that failed and how.
        error: String,
    },
}

/// What KVM says that it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Of the ioctl interface.
    pub api_version: i32,
    /// Entries of the largest dirty ring, 0 for none.
    pub dirty_ring_entries: u32,
    /// Whether its entries are documented to be handed over with acquire and release (kernel 6.1).
    pub dirty_ring_acq_rel: bool,
    /// vCPUs a VM can have.
    pub max_vcpus: usize,
    /// vCPUs a VM should have at most.
    pub recommended_vcpus: usize,
    /// Memory slots a VM can have.
    pub memory_slots: usize,
}

impl Kvm {
    /// Reads the modules' parameters, opens the device and tries it by creating a VM.
    pub fn gather(root: &Root, cpu: &Cpu) -> Self {
        let module = module_in_use(root, cpu);
        let parameters = ["kvm"]
            .into_iter()
            .chain(module)
            .flat_map(|name| parameters(root, name))
            .collect();
        Self {
            module: module.map(str::to_owned),
            parameters,
            device: try_device(root),
        }
    }

    /// A parameter of the module that runs guests.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let module = self.module.as_deref()?;
        self.parameters.get(&format!("{module}.{name}")).map(String::as_str)
    }

    /// Whether the processor logs dirty pages itself (page modification logging); `None` where the kernel does not say.
    pub fn pml(&self) -> Option<bool> {
        match (self.parameter("pml"), self.module.as_deref()) {
            (Some(value), _) => Some(matches!(value, "Y" | "1")),
            // The others grew it late or never: without the parameter they have none.
            (None, Some("kvm_amd" | "kvm_pvm")) => Some(false),
            (None, _) => None,
        }
    }
}

/// Only one of these can run guests. One that is built in shows in `/sys/module` whether it could start or not, so the
/// processor's extension decides between them; `kvm_pvm` needs none.
fn module_in_use(root: &Root, cpu: &Cpu) -> Option<&'static str> {
    let hardware = match cpu.extension {
        Some(Extension::Vmx) => Some("kvm_intel"),
        Some(Extension::Svm) => Some("kvm_amd"),
        None => None,
    };
    hardware
        .into_iter()
        .chain(["kvm_pvm"])
        .find(|name| root.path(format!("/sys/module/{name}")).is_dir())
}

fn parameters(root: &Root, module: &str) -> Vec<(String, String)> {
    let folder = format!("/sys/module/{module}/parameters");
    let named = |name: &String| Some((format!("{module}.{name}"), root.text(format!("{folder}/{name}"))?));
    root.names(&folder).iter().filter_map(named).collect()
}

fn try_device(root: &Root) -> Device {
    let path = root.path("/dev/kvm");
    let c_path = CString::new(path.as_os_str().as_bytes()).expect("a path of ours holds no NUL");
    let kvm = match KvmDevice::new_with_path(c_path) {
        Ok(kvm) => kvm,
        Err(error) => {
            return match Errno::from_raw(error.errno()) {
                // A node whose driver is not loaded answers with one of the last two.
                Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Device::Absent,
                // Only a device filter answers this way.
                Errno::EPERM => Device::Filtered,
                Errno::EACCES => denied(&path),
                errno => Device::Broken {
                    error: format!("can't be opened: {}", errno.desc()),
                },
            };
        }
    };

    let api_version = kvm.get_api_version();
    if api_version != API_VERSION {
        return Device::Broken {
            error: format!("answers with API version {api_version}, which should be {API_VERSION}"),
        };
    }
    if let Err(errno) = try_vm(&kvm) {
        return Device::Broken {
            error: format!("opens, but no VM can be created: {}", errno.desc()),
        };
    }
    let ring = RingCapability::of(&kvm).ok();
    Device::Usable(Capabilities {
        api_version,
        dirty_ring_entries: ring.map_or(0, |ring| ring.max_entries),
        dirty_ring_acq_rel: ring.is_some_and(|ring| ring.capability == CAP_DIRTY_LOG_RING_ACQ_REL),
        max_vcpus: kvm.get_max_vcpus(),
        recommended_vcpus: kvm.get_nr_vcpus(),
        memory_slots: kvm.get_nr_memslots(),
    })
}

/// The device can open while another hypervisor holds the processor's extension, or memory is short.
fn try_vm(kvm: &KvmDevice) -> Result<(), Errno> {
    loop {
        match kvm.create_vm().map_err(|error| Errno::from_raw(error.errno())) {
            Ok(_) => return Ok(()),
            // A signal came in between; nothing is wrong.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn denied(path: &std::path::Path) -> Device {
    let Ok(metadata) = path.metadata() else {
        return Device::Absent;
    };
    let gid = Gid::from_raw(metadata.gid());
    let group = Group::from_gid(gid)
        .ok()
        .flatten()
        .map_or_else(|| gid.to_string(), |group| group.name);
    Device::Denied {
        group,
        group_may_use: metadata.mode() & 0o060 == 0o060,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    fn gather(files: &[(&str, &str)]) -> Kvm {
        let tree = Tree::new(files);
        let cpu = Cpu::gather(&tree.root());
        Kvm::gather(&tree.root(), &cpu)
    }

    #[test]
    fn without_a_device_it_is_absent() {
        let kvm = gather(&[]);
        assert_eq!((kvm.module.as_deref(), kvm.device), (None, Device::Absent));
    }

    #[test]
    fn a_file_that_is_no_device_is_broken() {
        let kvm = gather(&[("/dev/kvm", "")]);
        assert!(matches!(kvm.device, Device::Broken { .. }), "{:?}", kvm.device);
    }

    #[test]
    fn the_processor_decides_between_modules_that_are_built_in() {
        let built_in = [
            ("/proc/cpuinfo", "flags : svm\n"),
            ("/sys/module/kvm/parameters/halt_poll_ns", "200000\n"),
            ("/sys/module/kvm_amd/parameters/nested", "1\n"),
            ("/sys/module/kvm_intel/parameters/pml", "N\n"),
        ];
        let kvm = gather(&built_in);
        assert_eq!(kvm.module.as_deref(), Some("kvm_amd"));
        assert_eq!(kvm.parameter("nested"), Some("1"));
        assert_eq!(
            kvm.parameters.keys().collect::<Vec<_>>(),
            ["kvm.halt_poll_ns", "kvm_amd.nested"]
        );
        assert_eq!(kvm.pml(), Some(false));
    }

    #[test]
    fn pml_is_read_where_it_is_said() {
        let with = |value| {
            gather(&[
                ("/proc/cpuinfo", "flags : vmx\n"),
                ("/sys/module/kvm_intel/parameters/pml", value),
            ])
        };
        assert_eq!(with("Y\n").pml(), Some(true));
        assert_eq!(with("N\n").pml(), Some(false));
        assert_eq!(gather(&[]).pml(), None);
        assert_eq!(
            gather(&[("/sys/module/kvm_pvm/parameters/force", "N\n")]).pml(),
            Some(false)
        );
    }
}
