//! What `/proc` says of a VMM: whether it runs a VM, and whether it is still there.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Error, Target,
    identity::{proc_text, process_name},
};

/// Number of the inode of the initial PID namespace, fixed in the kernel's interface.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The PID namespace in which this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// The host's, where process ids are those that the kernel's events have.
    Initial,
    /// One below it, such as a container's.
    Own,
}

impl PidNamespace {
    /// This process's.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(match fs::metadata("/proc/self/ns/pid")?.ino() {
            INITIAL_PID_NAMESPACE => Self::Initial,
            _ => Self::Own,
        })
    }
}

/// Checks that ids of processes mean the same to this process and to the kernel.
pub(crate) fn check_pid_namespace() -> Result<(), Error> {
    match PidNamespace::of_this_process() {
        Ok(PidNamespace::Initial) => Ok(()),
        Ok(PidNamespace::Own) => Err(Error::PidNamespace),
        Err(source) => Err(Error::Proc {
            path: "/proc/self/ns/pid".into(),
            source,
        }),
    }
}

/// Checks that `pid` is a process that has a VM; this process itself may have none yet.
///
/// # Errors
/// [`Error::NoSuchProcess`], [`Error::IsAThread`] or [`Error::NoVm`] if it isn't, [`Error::Proc`] if `/proc` doesn't say.
pub fn check_target(pid: u32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/status");
    let status = proc_text(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoSuchProcess { pid },
        _ => Error::Proc { path, source },
    })?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    match field("Tgid:").and_then(|leader| leader.parse().ok()) {
        Some(leader) if leader != pid => return Err(Error::IsAThread { pid, leader }),
        _ => {}
    }
    if pid == std::process::id() || has_vm(pid)? {
        return Ok(());
    }
    Err(Error::NoVm {
        pid,
        name: field("Name:").unwrap_or("?").to_owned(),
    })
}

fn has_vm(pid: u32) -> Result<bool, Error> {
    let path = format!("/proc/{pid}/fd");
    let descriptors = fs::read_dir(&path).map_err(|source| Error::Proc { path, source })?;
    let mut hidden = None;
    for entry in descriptors.flatten() {
        match kvm_link(&entry.path()) {
            Ok(Some(file)) if file.starts_with("vm") => return Ok(true),
            // The folder may be listed by whom what is open may not be shown to.
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                hidden = Some(Error::Proc {
                    path: entry.path().display().to_string(),
                    source,
                });
            }
            _ => {}
        }
    }
    hidden.map_or(Ok(false), Err)
}

/// The processes that have a KVM VM open, as far as this process may look: id and name.
pub fn kvm_processes() -> Vec<(u32, String)> {
    let name = |pid| (pid, process_name(pid).unwrap_or_default());
    kvm_pids().into_iter().map(name).collect()
}

/// Their ids, in order.
pub(crate) fn kvm_pids() -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<u32> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| has_vm(pid).unwrap_or(false))
        .collect();
    found.sort_unstable();
    found
}

/// The processes that are watched.
pub(crate) fn watched(target: Target) -> Vec<u32> {
    match target {
        Target::Pid(pid) => vec![pid],
        Target::AllKvm => kvm_pids(),
    }
}

/// From where on a vCPU's descriptor maps its dirty ring: `KVM_DIRTY_LOG_PAGE_OFFSET` pages.
const RING_OFFSET: u64 = 64 * 4096;

/// Whether a process has mapped the dirty ring of a vCPU: a VMM must, to read it. `None` where this process may not look.
pub(crate) fn has_ring(process: u32) -> Option<bool> {
    let maps = fs::read(format!("/proc/{process}/maps")).ok()?;
    Some(maps_a_ring(&String::from_utf8_lossy(&maps)))
}

fn maps_a_ring(maps: &str) -> bool {
    maps.lines().any(|line| {
        let offset = line
            .split_whitespace()
            .nth(2)
            .map(|offset| u64::from_str_radix(offset, 16));
        line.contains(" anon_inode:kvm-vcpu:") && matches!(offset, Some(Ok(offset)) if offset >= RING_OFFSET)
    })
}

/// `vm` or `vcpu:0` of a descriptor that links to `anon_inode:kvm-vcpu:0`; none of what isn't KVM's, or can't be looked at.
fn kvm_file(descriptor: &Path) -> Option<String> {
    kvm_link(descriptor).ok().flatten()
}

fn kvm_link(descriptor: &Path) -> io::Result<Option<String>> {
    let target: PathBuf = fs::read_link(descriptor)?;
    let file = target
        .to_str()
        .and_then(|target| target.strip_prefix("anon_inode:kvm-"));
    Ok(file.map(str::to_owned))
}

/// The descriptors of a process's vCPUs, as far as this process may look.
pub(crate) fn vcpu_descriptors(process: u32) -> Vec<u32> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return Vec::new();
    };
    let is_vcpu = |path: &Path| kvm_file(path).is_some_and(|file| file.starts_with("vcpu:"));
    descriptors
        .flatten()
        .filter(|entry| is_vcpu(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The vCPU behind the descriptor on which a thread calls `KVM_RUN`.
pub fn vcpu_of_descriptor(process: u32, descriptor: u32) -> Option<u32> {
    kvm_file(Path::new(&format!("/proc/{process}/fd/{descriptor}")))?
        .strip_prefix("vcpu:")?
        .parse()
        .ok()
}

/// Whether the thread is still there.
pub(crate) fn thread_lives(process: u32, thread: u32) -> bool {
    Path::new(&format!("/proc/{process}/task/{thread}")).exists()
}

/// Whether the process is still there, and not merely a zombie.
pub fn process_lives(process: u32) -> bool {
    proc_text(format!("/proc/{process}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_shows_in_the_mappings() {
        let run = "7f0000000000-7f0000003000 rw-s 00000000 00:0e 1027  anon_inode:kvm-vcpu:0\n";
        let ring = "7f0000010000-7f0000020000 rw-s 00040000 00:0e 1027  anon_inode:kvm-vcpu:0\n";
        assert!(!maps_a_ring(run));
        assert!(maps_a_ring(&format!("{run}{ring}")));
        assert!(!maps_a_ring(
            "7f0000010000-7f0000020000 rw-s 00040000 00:0e 1027  /some/file\n"
        ));
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        // Above the largest id that Linux gives out.
        assert!(matches!(
            check_target(4_194_305),
            Err(Error::NoSuchProcess { pid: 4_194_305 })
        ));
        assert!(!process_lives(4_194_305));
    }

    #[test]
    fn this_process_may_have_no_vm_yet() {
        assert!(check_target(std::process::id()).is_ok());
        assert!(process_lives(std::process::id()));
    }

    proptest::proptest! {
        #[test]
        fn any_mappings_have_a_ring_or_not(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let line = String::from_utf8_lossy(&bytes);
            let _ = maps_a_ring(&line);
            let _ = maps_a_ring(&format!("{line} anon_inode:kvm-vcpu:{line}"));
        }
    }
}
