//! tracefs: the kernel's list of tracepoints. It is read where it is mounted, wherever that is; where it is not mounted,
//! a mount that no other process sees is read instead, and ends with the reading.

mod format;
mod private;

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use nix::errno::Errno;

pub(crate) use format::Format;

use crate::KvmEvent;

/// Where the kernel makes a folder for it.
const USUAL: &str = "/sys/kernel/tracing";

/// A tracefs that can be read.
#[derive(Debug)]
pub struct Tracefs {
    root: PathBuf,
    /// The mount that nobody else sees, where there is no other.
    private: Option<OwnedFd>,
}

/// Why there is no tracefs to read; each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTracefs {
    /// This kernel has none.
    #[error("this kernel has no tracefs: boot one with CONFIG_FTRACE=y")]
    Unsupported,
    /// It is mounted nowhere, and this process may not mount it.
    #[error("tracefs is not mounted, and mounting it failed ({why}): as root, `mount -t tracefs tracefs {USUAL}`")]
    Unmounted {
        /// What the kernel said.
        why: String,
    },
    /// This user may not read it.
    #[error("{} is not readable: run as root", at.display())]
    Denied {
        /// Where it is mounted.
        at: PathBuf,
    },
}

impl Tracefs {
    /// The tracefs that is mounted, or else a mount that only this process sees, until the value is dropped.
    ///
    /// # Errors
    /// [`NoTracefs`], which says what to do.
    pub fn open() -> Result<Self, NoTracefs> {
        let mounts = fs::read("/proc/self/mounts").unwrap_or_default();
        let mut denied = None;
        for at in mount_points(&mounts) {
            // A mount is listed, too, if another one hides it, or if this user may not look into it.
            match fs::read_dir(at.join("events")) {
                Ok(_) => {
                    return Ok(Self {
                        root: at,
                        private: None,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => _ = denied.get_or_insert(at),
                Err(_) => {}
            }
        }
        match (private::mount(), denied) {
            (Ok(mount), _) => Ok(Self {
                root: format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
                private: Some(mount),
            }),
            (Err(_), Some(at)) => Err(NoTracefs::Denied { at }),
            (Err(Errno::ENODEV), None) => Err(NoTracefs::Unsupported),
            (Err(errno), None) => Err(NoTracefs::Unmounted { why: errno.to_string() }),
        }
    }

    /// Where it is mounted; `None` if it is nowhere, and this process alone sees it.
    pub fn mounted_at(&self) -> Option<&Path> {
        self.private.is_none().then_some(self.root.as_path())
    }

    /// Where this process reads it, as long as the value lives.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this kernel has an event.
    pub fn has(&self, event: KvmEvent) -> bool {
        let plan = event.plan();
        self.folder(plan.category, plan.event).join("format").exists()
    }

    /// The layout of an event's record. An error says what to do.
    pub(crate) fn format(&self, category: &str, event: &str) -> Result<Format, String> {
        Ok(Format::parse(&self.read(category, event, "format")?))
    }

    /// The number under which perf knows an event. An error says what to do.
    pub(crate) fn id(&self, category: &str, event: &str) -> Result<u64, String> {
        let text = self.read(category, event, "id")?;
        text.trim()
            .parse()
            .map_err(|_| format!("the id of {category}:{event} is no number: {text}"))
    }

    fn read(&self, category: &str, event: &str, file: &str) -> Result<String, String> {
        let path = self.folder(category, event).join(file);
        fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.lacks(category, event),
            io::ErrorKind::PermissionDenied => format!("{} is not readable: run as root", path.display()),
            _ => format!("{}: {error}", path.display()),
        })
    }

    /// Why there is no such event, and what would help.
    fn lacks(&self, category: &str, event: &str) -> String {
        let remedy = if category == "syscalls" {
            "its kernel was built without CONFIG_FTRACE_SYSCALLS, and only another kernel has it"
        } else if self.root.join("events").join(category).is_dir() {
            "KVM is loaded, but older than this event, and only a later kernel has it"
        } else {
            "KVM is not loaded: `modprobe kvm_intel` or `modprobe kvm_amd`"
        };
        format!("this machine has no event {category}:{event}: {remedy}")
    }

    fn folder(&self, category: &str, event: &str) -> PathBuf {
        self.root.join("events").join(category).join(event)
    }
}

/// Where a list of mounts (`/proc/self/mounts`) has tracefs, the usual place first.
fn mount_points(mounts: &[u8]) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut words = line.split(|&byte| byte == b' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == b"tracefs").then(|| unescaped(point))
        })
        .collect();
    points.sort_by_key(|point| point != Path::new(USUAL));
    points
}

/// A path as the kernel lists it: white space and backslashes are a `\` and three octal digits.
fn unescaped(listed: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(listed.len());
    let mut rest = listed;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_event() {
        let root = std::env::temp_dir().join(format!("dirtyrig-tracefs-{}", std::process::id()));
        let tracefs = Tracefs {
            root: root.clone(),
            private: None,
        };
        let lacks = |category, event| tracefs.format(category, event).expect_err("it is not there");
        assert!(lacks("kvm", "kvm_exit").contains("modprobe kvm_intel"));
        fs::create_dir_all(root.join("events/kvm")).expect("a folder");
        let (later, syscalls) = (lacks("kvm", "kvm_exit"), lacks("syscalls", "sys_enter_ioctl"));
        fs::remove_dir_all(&root).expect("it was just made");
        assert!(later.contains("later kernel") && !later.contains("modprobe"), "{later}");
        assert!(
            syscalls.contains("CONFIG_FTRACE_SYSCALLS") && !syscalls.contains("modprobe"),
            "{syscalls}"
        );
    }

    #[test]
    fn the_usual_place_comes_first() {
        let mounts = b"none /sys/kernel/debug/tracing tracefs rw 0 0\nnone /sys/kernel/tracing tracefs rw 0 0\n";
        assert_eq!(
            mount_points(mounts),
            [Path::new("/sys/kernel/tracing"), Path::new("/sys/kernel/debug/tracing")]
        );
    }

    #[test]
    fn any_place_will_do_whatever_its_name() {
        let points = |mounts| mount_points(mounts);
        assert_eq!(points(b"none /mnt/a\\040b tracefs rw 0 0\n"), [Path::new("/mnt/a b")]);
        assert_eq!(
            points(b"none /mnt/\\134040 tracefs rw 0 0\n"),
            [Path::new("/mnt/\\040")]
        );
        assert_eq!(
            points(b"none /mnt/\xff tracefs rw 0 0\n")[0]
                .as_os_str()
                .as_encoded_bytes(),
            b"/mnt/\xff"
        );
        assert!(points(b"tracefs /mnt ext4 rw 0 0\n\n").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_mounts(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0usize..200) {
            let _ = mount_points(&bytes);
            let line = [b"none \\".as_slice(), &bytes, b" tracefs rw 0 0\n"].concat();
            let _ = mount_points(&line[..at.min(line.len())]);
        }
    }
}
