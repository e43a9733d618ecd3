//! Which vCPUs a VM has, and how large their rings are: `/proc` shows the mappings that its VMM made.

use std::collections::BTreeMap;

use dirtyrig_probes::identity::proc_text;

/// Bytes of an entry of a dirty ring.
const ENTRY_BYTES: u64 = 16;
/// Where a vCPU's descriptor has its dirty ring: 64 pages in.
const RING_OFFSET: &str = "00040000";

/// The entries of each vCPU's dirty ring by KVM's id, as `process` has mapped them.
pub(super) fn rings(process: u32) -> BTreeMap<u32, u32> {
    rings_in(&proc_text(format!("/proc/{process}/maps")).unwrap_or_default())
}

fn rings_in(maps: &str) -> BTreeMap<u32, u32> {
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
        assert!(rings(std::process::id()).is_empty());
    }
}
