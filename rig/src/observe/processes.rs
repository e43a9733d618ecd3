//! What `/proc` says of a VMM, beyond what the probes ask.

use std::fs;

use dirtyrig_probes::identity::proc_text;

/// KVM's ids of the vCPUs that a process has open, in order.
pub fn vcpus(pid: u32) -> Vec<u32> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("anon_inode:kvm-vcpu:")?.parse().ok()
    };
    let mut vcpus: Vec<u32> = descriptors.flatten().filter_map(number).collect();
    vcpus.sort_unstable();
    vcpus.dedup();
    vcpus
}

/// Entries of each dirty ring as QEMU's command line has them: nothing in the kernel tells from outside.
pub fn ring_entries(pid: u32) -> Option<u32> {
    ring_in(&proc_text(format!("/proc/{pid}/cmdline")).ok()?)
}

fn ring_in(command_line: &str) -> Option<u32> {
    let (_, rest) = command_line.split_once("dirty-ring-size=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|&entries| entries > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_names_its_ring() {
        assert_eq!(ring_in("qemu\0-accel\0kvm,dirty-ring-size=4096\0-m\0"), Some(4096));
        assert_eq!(ring_in("qemu\0-accel\0kvm,dirty-ring-size=1024,x=y\0"), Some(1024));
        assert_eq!(ring_in("qemu\0-accel\0kvm\0"), None);
    }

    #[test]
    fn a_process_without_vm_has_no_vcpus() {
        assert!(vcpus(std::process::id()).is_empty());
    }
}
