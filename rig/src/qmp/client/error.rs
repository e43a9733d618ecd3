//! Why a command got no reply, or not the one that was wanted; each with its remedy.

use std::{io, path::PathBuf, time::Duration};

/// Why a command got no reply, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens.
    #[error(
        "can't connect to the QMP socket {}: start QEMU with `-qmp unix:{},server=on,wait=off`, or name the socket that \
         it has", path.display(), path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Connected, and not greeted.
    #[error(
        "the QMP socket {} is busy: it did not greet within {} s, and it serves one client at a time; end the other \
         client, or give QEMU one more socket (`-qmp unix:PATH,server=on,wait=off`)", path.display(), waited.as_secs()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Something else listens.
    #[error("{} is no QMP socket: it says `{said}`; name the one that QEMU got with `-qmp`", path.display())]
    NotQmp {
        /// The socket.
        path: PathBuf,
        /// What was received.
        said: String,
    },
    /// The command was refused.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        reason: String,
    },
    /// The process stands still.
    #[error(
        "QEMU (process {pid}) stands still, stopped by a signal or held by a debugger, and answers nothing: let it go on \
         (`kill -CONT {pid}`, or end the debugger)"
    )]
    Stopped {
        /// The process.
        pid: u32,
    },
    /// No reply.
    #[error("QEMU hangs: no reply to `{command}` within {} s; see what it is doing, or end it", waited.as_secs())]
    Hangs {
        /// The command.
        command: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The connection is gone.
    #[error("QEMU closed its QMP socket {}: it has ended, or its monitor was taken away", path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The system refuses to send or receive.
    #[error("can't talk over the QMP socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
