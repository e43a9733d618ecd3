//! Which threads of a VMM run vCPUs, as `/proc` tells.
//!
//! Which vCPUs there are the mappings of their rings tell. A thread is a vCPU's if its name says so, or if it sleeps in
//! `KVM_RUN`, or if the kernel's events show it there. The number is the one in the thread's name, which is what the VMM's
//! own commands use (QEMU: `cpu-index`), else that of the descriptor on which it calls `KVM_RUN`.
//!
//! No thread is interrupted for that: one that happens to be in `KVM_RESET_DIRTY_RINGS` would have its reset cut short, and
//! QEMU takes that for a fault of the kernel's and aborts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use dirtyrig_probes::{vcpu_of_descriptor, vcpu_of_thread_name};

/// A thread that runs a vCPU, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VcpuThread {
    pub(super) thread: u32,
    /// Unknown while it runs and has no name, though it has spent time in a guest.
    pub(super) vcpu: Option<usize>,
}

const SYS_IOCTL: u64 = 16;
const KVM_RUN: u64 = 0xAE80;
/// Bytes of an entry of a dirty ring.
const ENTRY_BYTES: u64 = 16;
/// Where a vCPU's descriptor has its dirty ring: 64 pages in.
const RING_OFFSET: &str = "00040000";

/// The vCPU threads of `process` that are not in `known`.
pub(super) fn find(process: u32, known: &BTreeSet<u32>) -> Vec<VcpuThread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .filter(|thread| !known.contains(thread))
        .filter_map(|thread| {
            let vcpu = vcpu_of_thread_name(process, thread)
                .map(|vcpu| vcpu as usize)
                .or_else(|| in_kvm_run(process, thread));
            (vcpu.is_some() || guest_ticks(process, thread) > 0).then_some(VcpuThread { thread, vcpu })
        })
        .collect()
}

/// The vCPU for which a thread that stands still is in `KVM_RUN`.
fn in_kvm_run(process: u32, thread: u32) -> Option<usize> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/syscall")).ok()?;
    Some(vcpu_of_descriptor(process, kvm_run_descriptor(&text)?)? as usize)
}

fn kvm_run_descriptor(syscall: &str) -> Option<u32> {
    // The call's number, six arguments, the stack's and the program's address.
    let (number, rest) = syscall.trim_end().split_once(' ')?;
    let word = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let words: Vec<u64> = rest.split(' ').map(word).collect::<Option<_>>()?;
    let &[descriptor, request, _, _, _, _, _, program] = words.as_slice() else {
        return None;
    };
    // KVM's own worker was forked by a vCPU's thread, and seems to be in its call, but is nowhere in the program.
    (number.parse() == Ok(SYS_IOCTL) && request == KVM_RUN && program != 0).then_some(descriptor as u32)
}

/// Time that a thread has spent in a guest, in the kernel's ticks.
fn guest_ticks(process: u32, thread: u32) -> u64 {
    // Field 43 of `stat`; what follows the name in parentheses begins with field 3.
    fs::read_to_string(format!("/proc/{process}/task/{thread}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(40)?.parse().ok())
        .unwrap_or(0)
}

/// The entries of each vCPU's dirty ring, as `process` has mapped them.
pub(super) fn rings(process: u32) -> BTreeMap<usize, u32> {
    rings_in(&fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default())
}

fn rings_in(maps: &str) -> BTreeMap<usize, u32> {
    let ring = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, _permissions, offset) = (words.next()?, words.next()?, words.next()?);
        if offset != RING_OFFSET {
            return None;
        }
        let (_, vcpu) = line.split_once("anon_inode:kvm-vcpu:")?;
        let (from, to) = range.split_once('-')?;
        let at = |text| u64::from_str_radix(text, 16).ok();
        let entries = at(to)?.checked_sub(at(from)?)? / ENTRY_BYTES;
        Some((vcpu.trim_end().parse().ok()?, u32::try_from(entries).ok()?))
    };
    maps.lines().filter_map(ring).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kvm_run_counts() {
        let line = "16 0xb 0xae80 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n";
        assert_eq!(kvm_run_descriptor(line), Some(11));
        for other in [
            "running\n",
            "16 0xb 0xaec7 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n",
            "7 0xb 0xae80 0x0 0x0 0x7f 0x0 0x7ffe 0x7f12\n",
            "16 0x10 0xae80 0x0 0x0 0x0 0x0 0x0 0x0\n",
            "-1 0x7ffe 0x7f12\n",
            "",
        ] {
            assert_eq!(kvm_run_descriptor(other), None, "{other}");
        }
    }

    #[test]
    fn a_ring_is_the_mapping_behind_the_first_64_pages() {
        let maps = "7f00-7f10 rw-s 00000000 00:0f 1064                       anon_inode:kvm-vcpu:0\n\
                    7fe6b2200000-7fe6b2210000 rw-s 00040000 00:0f 1064               anon_inode:kvm-vcpu:0\n\
                    7fe6b2300000-7fe6b2400000 rw-s 00040000 00:0f 1064               anon_inode:kvm-vcpu:1\n\
                    7fe6b2500000-7fe6b2600000 rw-s 00040000 08:01 99                 /a/file\n";
        assert_eq!(rings_in(maps), BTreeMap::from([(0, 4096), (1, 65_536)]));
        assert!(rings_in("7f00-7f10 r-xp 00000000 08:01 7 /bin/true\n").is_empty());
    }

    #[test]
    fn a_process_without_a_vm_has_none() {
        assert_eq!(find(std::process::id(), &BTreeSet::new()), []);
        assert!(rings(std::process::id()).is_empty());
    }
}
