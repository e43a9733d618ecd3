//! KVM's own note of which thread ran which vCPU last: `kvm/<process>-<descriptor>/vcpu<id>/pid` in debugfs, since Linux
//! 5.18. It is there whether the vCPU runs, sleeps or is suspended, and nobody has to be interrupted for it.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::proc::proc_text;

/// Where it usually is.
const MOUNTED: &str = "/sys/kernel/debug";

/// Its own mount, which no path leads to: it is nobody else's to see, and goes with this process. `None` where it can't be
/// had.
static OWN: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// Where `kvm` is found in debugfs.
fn root() -> Option<PathBuf> {
    let usual = PathBuf::from(MOUNTED);
    if usual.join("kvm").is_dir() {
        return Some(usual);
    }
    let own = OWN.get_or_init(unseen_mount).as_ref()?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", own.as_raw_fd()));
    // There since KVM's module was loaded.
    root.join("kvm").is_dir().then_some(root)
}

/// A mount of debugfs that is attached nowhere.
fn unseen_mount() -> Option<OwnedFd> {
    let context = fsopen("debugfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_create(&context).ok()?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .ok()
}

/// The KVM id of the vCPU that each thread of `process` ran last, as far as KVM says.
pub(super) fn vcpus_by_thread(process: u32) -> BTreeMap<u32, u32> {
    let is_own = |thread: u32| Path::new(&format!("/proc/{process}/task/{thread}")).exists();
    root().map_or_else(BTreeMap::new, |root| read(&root.join("kvm"), is_own))
}

fn read(folder: &Path, is_own: impl Fn(u32) -> bool) -> BTreeMap<u32, u32> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let vms: Vec<(bool, PathBuf)> = entries(folder)
        .filter_map(|entry| {
            let name = entry.file_name();
            let (creator, _descriptor) = name.to_str()?.split_once('-')?;
            Some((is_own(creator.parse().ok()?), entry.path()))
        })
        .collect();
    // A VM's folder has the id of the thread that created it, which may have ended since.
    let knows_creator = vms.iter().any(|(is_own, _)| *is_own);
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (_, vm) in vms.iter().filter(|(is_own, _)| *is_own || !knows_creator) {
        for vcpu in entries(vm) {
            let id = vcpu
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("vcpu")?.parse().ok());
            let thread = proc_text(vcpu.path().join("pid"))
                .ok()
                .and_then(|text| text.trim().parse().ok());
            if let (Some(id), Some(thread)) = (id, thread)
                && thread != 0
                && is_own(thread)
            {
                found.entry(thread).or_default().push(id);
            }
        }
    }
    // A vCPU that was unplugged keeps the id of a thread that ended, which another may have got since: then two claim it.
    found
        .into_iter()
        .filter_map(|(thread, ids)| match ids.as_slice() {
            &[id] => Some((thread, id)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        // Relaxed: only to tell folders apart.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = std::env::temp_dir().join(format!(
            "dirtyrig-debugfs-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn threads_are_told_by_the_vm_of_their_process() {
        let root = tree(&[
            ("10-9/vcpu0/pid", "11\n"),
            ("10-9/vcpu4/pid", "12\n"),
            ("10-9/vcpu5/pid", "0\n"),
            ("10-9/vcpu6/pid", "99\n"),
            ("10-9/exits", "7\n"),
            ("20-9/vcpu1/pid", "12\n"),
            ("halt_exits", "7\n"),
        ]);
        let found = read(&root, |thread| (10..20).contains(&thread));
        assert_eq!(found, BTreeMap::from([(11, 0), (12, 4)]));
        // Whoever created it is gone: then every VM is looked at.
        let found = read(&root, |thread| (11..20).contains(&thread));
        assert_eq!(found, BTreeMap::from([(11, 0)]), "two claim thread 12");
        fs::remove_dir_all(root).expect("it is there");
    }

    #[test]
    fn what_is_not_there_says_nothing() {
        assert!(read(Path::new("/nowhere"), |_| true).is_empty());
    }
}
