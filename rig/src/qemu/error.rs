//! Why a QEMU can't be used, with the remedy.

use std::{io, path::PathBuf, time::Duration};

use dirtyrig_limiter::law::LimiterKind;

use super::version::Version;
use crate::qmp::client::QmpError;

/// Why a QEMU can't be used.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The name or the path leads nowhere.
    #[error(
        "there is no `{}`: install QEMU (Debian: sudo apt-get install qemu-system-x86), or name the binary: `--vmm \
         qemu:/usr/bin/qemu-system-x86_64`", path.display()
    )]
    NotFound {
        /// What was looked for.
        path: PathBuf,
    },
    /// The file is no program.
    #[error("{} can't be executed: name QEMU's binary, such as `--vmm qemu:/usr/bin/qemu-system-x86_64`", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Some other program.
    #[error(
        "{} is not QEMU: to `--version` it says `{said}`; name one such as `--vmm qemu:/usr/bin/qemu-system-x86_64`",
        path.display()
    )]
    NotQemu {
        /// The binary.
        path: PathBuf,
        /// First line of what it said.
        said: String,
    },
    /// A program that answers nothing.
    #[error(
        "{} did not answer `{question}` within {} s: it hangs, or is not QEMU; name another binary (`--vmm qemu:PATH`)",
        path.display(), waited.as_secs()
    )]
    NoAnswer {
        /// The binary.
        path: PathBuf,
        /// What it was asked.
        question: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// Older than the dirty limit.
    #[error("{} is QEMU {version}, which has no dirty limit: it came with 7.1, so take that or a newer one", path.display())]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// Built for emulation alone, or for another machine.
    #[error(
        "{} was built without KVM, and a dirty ring is KVM's: name a qemu-system-x86_64 that lists `kvm` under `-accel \
         help`", path.display()
    )]
    NoKvm {
        /// The binary.
        path: PathBuf,
    },
    /// A limiter that this QEMU doesn't have.
    #[error(
        "limiter `{asked}` is not that of {name}, whose own is `{own}`: give `--limiter {own}` or `none`, or another QEMU \
         (`--vmm qemu:BINARY`)"
    )]
    OtherLimiter {
        /// What was asked for.
        asked: LimiterKind,
        /// The law that it has.
        own: LimiterKind,
        /// The QEMU, with its version.
        name: String,
    },
    /// It can't do what the scenario asks.
    #[error("{what} can't be had of QEMU: {remedy}")]
    Unable {
        /// What was asked.
        what: String,
        /// What to do instead.
        remedy: String,
    },
    /// It ended before the guest ran.
    #[error("QEMU {version} ended at its start ({status}); it said:\n{said}\n  remedy: {remedy}")]
    Start {
        /// Its version.
        version: Version,
        /// How it ended.
        status: String,
        /// What it wrote to stderr.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It ended in the middle of it all.
    #[error("QEMU {version} (process {pid}) ended by itself: {status}; it said:\n{said}")]
    Ended {
        /// Its version.
        version: Version,
        /// Its process.
        pid: u32,
        /// How it ended.
        status: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// An attached one is gone.
    #[error("QEMU (process {pid}), which was attached to, has ended")]
    Gone {
        /// Its process.
        pid: u32,
    },
    /// The guest doesn't start to write.
    #[error(
        "the guest does not run after {} s under QEMU {version}: see whether a guest runs with `-cpu qemu64 -machine q35` \
         and this firmware; QEMU said:\n{said}", waited.as_secs()
    )]
    NoGuest {
        /// QEMU's version.
        version: Version,
        /// How long was waited.
        waited: Duration,
        /// What it wrote to stderr.
        said: String,
    },
    /// No ring in an attached QEMU.
    #[error(
        "QEMU (process {pid}) runs without a dirty ring, so it can limit nothing: start it with `-accel \
         kvm,dirty-ring-size=4096`"
    )]
    NoRing {
        /// Its process.
        pid: u32,
    },
    /// Limits that somebody else set.
    #[error(
        "QEMU (process {pid}) has dirty limits in force already, which would be lost: cancel them first \
         (`cancel-vcpu-dirty-limit`)"
    )]
    LimitedAlready {
        /// Its process.
        pid: u32,
    },
    /// Nothing sees what an attached guest dirties.
    #[error("a guest that is attached to has no counter of ours, so the probes are needed: {why}; run it as root")]
    NoEyes {
        /// Why they can't be had.
        why: String,
    },
    /// The process behind a socket is not to be found.
    #[error(
        "the QMP socket {} does not lead to a process with vCPUs here: attach on the machine, and in the PID namespace, \
         in which QEMU runs", path.display()
    )]
    NoProcess {
        /// The socket.
        path: PathBuf,
    },
    /// The monitor fails.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The system refuses something.
    #[error("can't {operation} for QEMU")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },
}
