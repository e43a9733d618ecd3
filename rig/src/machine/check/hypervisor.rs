//! Checks of KVM: the device, the ring, PML.

use dirtyrig_ring::MAX_RING_ENTRIES;

use super::Finding;
use crate::machine::{
    cpu::{Cpu, Extension},
    kernel::Kernel,
    kvm::{Device, Kvm},
};

const PASS_DEVICE: &str = "start the container with --device /dev/kvm";

/// Whether a VM can be created, and else what stands in the way.
pub(in crate::machine) fn kvm(kvm: &Kvm, cpu: &Cpu) -> Finding {
    let module = kvm.module.as_deref().unwrap_or("an unknown module");
    match &kvm.device {
        Device::Usable(capabilities) => Finding::ok(format!(
            "/dev/kvm works, driven by {module} (API version {})",
            capabilities.api_version
        )),
        Device::Absent => absent(kvm, cpu),
        Device::Filtered => Finding::missing(
            "/dev/kvm is there, but a container's device filter forbids it",
            PASS_DEVICE,
        ),
        Device::Denied {
            group,
            group_may_use: true,
        } => Finding::missing(
            format!("/dev/kvm may not be opened by this user, only by group {group}"),
            format!("sudo usermod -aG {group} $USER, then log in again"),
        ),
        Device::Denied {
            group,
            group_may_use: false,
        } => Finding::missing(
            format!("/dev/kvm may not be opened by this user, nor by its group ({group})"),
            "sudo groupadd -f kvm && sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && sudo usermod -aG kvm $USER, then log in again",
        ),
        Device::Broken { error } => Finding::missing(
            format!("/dev/kvm {error}"),
            "sudo dmesg | grep -i kvm, and stop other hypervisors (VirtualBox, VMware) on this machine",
        ),
    }
}

fn absent(kvm: &Kvm, cpu: &Cpu) -> Finding {
    if let Some(module) = &kvm.module {
        return Finding::missing(
            format!("{module} is there, but /dev/kvm is not: this looks like a container"),
            PASS_DEVICE,
        );
    }
    match (cpu.extension, &cpu.hypervisor) {
        (Some(Extension::Vmx), _) => {
            Finding::missing("no /dev/kvm: kvm_intel is not loaded", "sudo modprobe kvm_intel")
        }
        (Some(Extension::Svm), _) => Finding::missing("no /dev/kvm: kvm_amd is not loaded", "sudo modprobe kvm_amd"),
        (None, Some(hypervisor)) => Finding::missing(
            format!("no /dev/kvm: this machine is a guest of {hypervisor} and is offered no virtualisation"),
            "enable nesting on the host (sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1, or kvm_amd) and \
             start this machine with -cpu host; in a cloud choose a type with nested virtualisation",
        ),
        (None, None) => Finding::missing(
            "no /dev/kvm: the processor offers no virtualisation",
            "switch on VT-x (Intel) or SVM (AMD) in the firmware setup",
        ),
    }
}

/// Whether there is a dirty ring, and how large it may be.
pub(in crate::machine) fn dirty_ring(kvm: &Kvm, kernel: &Kernel) -> Finding {
    let Device::Usable(capabilities) = &kvm.device else {
        return Finding::missing("can't be asked for without KVM", "mend kvm first");
    };
    let entries = capabilities.dirty_ring_entries;
    if entries == 0 {
        return Finding::missing(
            format!("kernel {} has no dirty ring", kernel.release),
            "boot Linux 5.11 or newer on x86-64",
        );
    }
    let kind = if capabilities.dirty_ring_acq_rel {
        "with acquire/release"
    } else {
        "without acquire/release"
    };
    let found = format!("up to {entries} entries, {kind}");
    if entries < MAX_RING_ENTRIES {
        Finding::degraded(found, format!("ask for no more: --ring {entries}"))
    } else {
        Finding::ok(found)
    }
}

/// Says what page modification logging does to a ring's usable size; neither state is wrong.
pub(in crate::machine) fn pml(kvm: &Kvm) -> Finding {
    match kvm.pml() {
        Some(true) => Finding::ok("on: a ring is full 576 entries before its size (4096: at 3520)"),
        Some(false) => Finding::ok("not in effect: a ring is full 64 entries before its size (4096: at 4032)"),
        None => Finding::ok("unknown: the kernel does not say"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status, fixture::healthy};
    use crate::machine::{
        Facts,
        kvm::{Capabilities, Device},
    };

    fn device(device: Device) -> Facts {
        let mut facts = healthy();
        facts.kvm.device = device;
        facts
    }

    fn absent(change: impl Fn(&mut Facts)) -> Finding {
        let mut facts = device(Device::Absent);
        facts.kvm.module = None;
        change(&mut facts);
        kvm(&facts)
    }

    fn kvm(facts: &Facts) -> Finding {
        super::kvm(&facts.kvm, &facts.cpu)
    }

    fn ring(facts: &Facts) -> Finding {
        super::dirty_ring(&facts.kvm, &facts.kernel)
    }

    fn remedy(finding: &Finding) -> &str {
        assert_eq!(finding.status, Status::Missing);
        finding.remedy.as_deref().unwrap()
    }

    #[test]
    fn an_absent_device_is_traced_to_its_cause() {
        use crate::machine::cpu::Extension;

        assert_eq!(remedy(&absent(|_| ())), "sudo modprobe kvm_intel");
        assert_eq!(
            remedy(&absent(|facts| facts.cpu.extension = Some(Extension::Svm))),
            "sudo modprobe kvm_amd"
        );
        assert!(remedy(&absent(|facts| facts.cpu.extension = None)).contains("firmware"));
        let guest = absent(|facts| {
            facts.cpu.extension = None;
            facts.cpu.hypervisor = Some("Xen".to_owned());
        });
        assert!(remedy(&guest).contains("nest") && guest.found.contains("Xen"));
        let container = absent(|facts| facts.kvm.module = Some("kvm_amd".to_owned()));
        assert!(remedy(&container).contains("--device /dev/kvm"));
        assert!(remedy(&kvm(&device(Device::Filtered))).contains("--device /dev/kvm"));
    }

    #[test]
    fn a_group_is_only_joined_if_that_helps() {
        let denied = |group: &str, group_may_use| {
            kvm(&device(Device::Denied {
                group: group.to_owned(),
                group_may_use,
            }))
        };
        assert!(remedy(&denied("virt", true)).starts_with("sudo usermod -aG virt"));
        assert!(remedy(&denied("root", false)).contains("sudo chgrp kvm /dev/kvm"));
    }

    #[test]
    fn a_device_that_fails_says_how() {
        let finding = kvm(&device(Device::Broken {
            error: "opens, but no VM can be created: Device busy".to_owned(),
        }));
        assert_eq!(finding.status, Status::Missing);
        assert!(finding.found.contains("Device busy"));
    }

    #[test]
    fn the_ring_is_judged_by_its_size() {
        let with = |dirty_ring_entries| {
            ring(&device(Device::Usable(Capabilities {
                api_version: 12,
                dirty_ring_entries,
                dirty_ring_acq_rel: true,
                max_vcpus: 1,
                recommended_vcpus: 1,
                memory_slots: 1,
            })))
        };
        assert_eq!(with(0).status, Status::Missing);
        assert_eq!(with(65_536).status, Status::Ok);
        let small = with(4096);
        assert_eq!(
            (small.status, small.remedy.as_deref()),
            (Status::Degraded, Some("ask for no more: --ring 4096"))
        );
        assert_eq!(ring(&device(Device::Absent)).status, Status::Missing);
    }

    #[test]
    fn pml_is_told_and_never_complained_about() {
        let mut facts = healthy();
        assert!(super::pml(&facts.kvm).found.contains("3520"));
        facts.kvm.parameters.insert("kvm_intel.pml".to_owned(), "N".to_owned());
        assert!(super::pml(&facts.kvm).found.contains("4032"));
        facts.kvm.parameters.clear();
        assert!(super::pml(&facts.kvm).found.contains("unknown"));
    }
}
