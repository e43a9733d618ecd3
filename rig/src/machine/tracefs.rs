//! tracefs, where the kernel says how its tracepoints are laid out.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::root::Root;

/// The tracepoints that the probes can make use of, as `kvm/NAME`.
pub const KVM_EVENTS: [&str; 6] = [
    "kvm_dirty_ring_exit",
    "kvm_dirty_ring_push",
    "kvm_dirty_ring_reset",
    "kvm_entry",
    "kvm_exit",
    "kvm_userspace_exit",
];

/// How far one gets with tracefs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Tracefs {
    /// This kernel has none.
    Unsupported,
    /// It is mounted nowhere.
    Unmounted,
    /// This user may not read it.
    Denied {
        /// Where it is mounted.
        at: PathBuf,
    },
    /// It is readable.
    Readable {
        /// Where it is mounted.
        at: PathBuf,
        /// Those of [`KVM_EVENTS`] that exist; none while KVM is not loaded.
        events: Vec<String>,
    },
}

impl Tracefs {
    /// Finds the mount and looks for KVM's tracepoints in it.
    pub fn gather(root: &Root) -> Self {
        let Some(at) = mount_point(&root.text("/proc/self/mounts").unwrap_or_default()) else {
            let filesystems = root.text("/proc/filesystems").unwrap_or_default();
            let known = filesystems.split_whitespace().any(|word| word == "tracefs");
            return if known { Self::Unmounted } else { Self::Unsupported };
        };
        // A mount is listed for those, too, who may not look into it.
        match fs::read_dir(root.path(at.join("events"))) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::Denied { at },
            _ => Self::Readable {
                events: KVM_EVENTS
                    .into_iter()
                    .filter(|event| root.text(at.join("events/kvm").join(event).join("format")).is_some())
                    .map(str::to_owned)
                    .collect(),
                at,
            },
        }
    }
}

/// The usual place if it is among the mounts, else the first one.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    const USUAL: &str = "/sys/kernel/tracing";
    let mut points: Vec<&Path> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "tracefs").then(|| Path::new(point))
        })
        .collect();
    points.sort_by_key(|point| *point != Path::new(USUAL));
    points.first().map(|point| point.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::fixture::Tree;

    #[test]
    fn unsupported_and_unmounted_are_told_apart() {
        let without = Tree::new(&[("/proc/filesystems", "nodev\tsysfs\n\text4\n")]);
        assert_eq!(Tracefs::gather(&without.root()), Tracefs::Unsupported);
        let with = Tree::new(&[
            ("/proc/filesystems", "nodev\tsysfs\nnodev\ttracefs\n"),
            ("/proc/self/mounts", "sysfs /sys sysfs rw 0 0\n"),
        ]);
        assert_eq!(Tracefs::gather(&with.root()), Tracefs::Unmounted);
    }

    #[test]
    fn lists_the_events_that_exist() {
        let tree = Tree::new(&[
            ("/proc/self/mounts", "tracefs /sys/kernel/tracing tracefs rw 0 0\n"),
            ("/sys/kernel/tracing/events/kvm/kvm_exit/format", "name: kvm_exit\n"),
            ("/sys/kernel/tracing/events/kvm/kvm_msr/format", "name: kvm_msr\n"),
        ]);
        let expected = Tracefs::Readable {
            at: "/sys/kernel/tracing".into(),
            events: vec!["kvm_exit".to_owned()],
        };
        assert_eq!(Tracefs::gather(&tree.root()), expected);
    }

    #[test]
    fn prefers_the_usual_mount() {
        let mounts = "none /sys/kernel/debug/tracing tracefs rw 0 0\nnone /sys/kernel/tracing tracefs rw 0 0\n";
        assert_eq!(mount_point(mounts), Some("/sys/kernel/tracing".into()));
        assert_eq!(mount_point("none /mnt tracefs rw 0 0\n"), Some("/mnt".into()));
        assert_eq!(mount_point("tracefs /mnt ext4 rw 0 0\n"), None);
    }
}
