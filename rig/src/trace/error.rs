//! What can go wrong with a trace, and what to do about it.

use std::{io, path::PathBuf};

use super::VERSION;

/// Why a trace can't be written, read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A trace must not touch what is there.
    #[error("`{}` exists and traces are never overwritten: give another file with --trace", path.display())]
    Exists {
        /// The file that was asked for.
        path: PathBuf,
    },
    /// The system refused.
    #[error("can't {operation} the trace `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not written by `observe --trace`.
    #[error("`{}` is no dirty trace: give a file that `dirtyrig observe --trace FILE` recorded", path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
    },
    /// Of a dirtyrig to come.
    #[error(
        "`{}` has trace format {found}, but this dirtyrig reads {VERSION}: update dirtyrig, or record the trace again",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u16,
    },
    /// A checksum, or what it protects, is wrong.
    #[error("`{}` is damaged at byte {at}: {problem}; copy the file again from where it was recorded", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad part begins.
        at: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing to replay.
    #[error(
        "`{}` has no dirtied page: dirty logging was off while it was recorded (it is on during a migration, or \
         QEMU's `calc-dirty-rate` in the mode dirty-ring)",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than the rig's guest can have.
    #[error("`{}` has {vcpus} vCPUs, but the rig's guest can have {most}: record a VM with fewer", path.display())]
    TooManyVcpus {
        /// The file.
        path: PathBuf,
        /// How many it has.
        vcpus: usize,
        /// The most there can be.
        most: usize,
    },
    /// The guest's memory would be too small.
    #[error(
        "`--memory {given}` can't hold the {pages} pages that `{}` dirties: give `--memory {needed}`, or leave it out",
        path.display()
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// MiB that were given.
        given: u64,
        /// MiB that are needed.
        needed: u64,
        /// Different pages of the trace.
        pages: u64,
    },
    /// More memory than the rig's guest can have.
    #[error(
        "`{}` needs {needed} MiB of guest memory for its pages and its table of writes, but the rig's guest can have \
         {most}: record a shorter time with `observe --duration`",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// MiB that are needed.
        needed: u64,
        /// MiB that there can be.
        most: u64,
    },
}
