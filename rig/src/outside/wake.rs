//! What the controlling thread waits for: a change of one of its tracees, a command, or the time to act.
//!
//! Every change sends this process a SIGCHLD, on whichever thread takes it, so its handler writes into a socket that
//! the controlling thread polls: no change is missed however many threads there are.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{signal::Signal, time::TimeSpec},
};
use signal_hook::{SigId, low_level};

/// The waiting end.
pub(super) struct Wake {
    receiver: UnixStream,
    sigchld: SigId,
}

/// The end that wakes.
#[derive(Debug)]
pub(super) struct Waker(UnixStream);

/// A socket, and SIGCHLDs that write to it from now on.
pub(super) fn channel() -> io::Result<(Wake, Waker)> {
    let (receiver, sender) = UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    sender.set_nonblocking(true)?;
    let sigchld = low_level::pipe::register(Signal::SIGCHLD as i32, sender.try_clone()?)?;
    Ok((Wake { receiver, sigchld }, Waker(sender)))
}

impl Wake {
    /// Waits until woken, `timeout` at most; whoever wakes from here on is not missed by the next call.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let mut descriptors = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut descriptors, Some(TimeSpec::from_duration(timeout)), None) {
            // Interrupted: a signal's handler ran on this very thread, and has written if it was a SIGCHLD.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.drain()
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match self.receiver.read(&mut bytes) {
                Ok(read) if read == bytes.len() => {}
                Ok(_) => return Ok(()),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        low_level::unregister(self.sigchld);
    }
}

impl Waker {
    /// Ends the wait that goes on, or the next one.
    pub(super) fn wake(&self) {
        // It fails where the socket is full, and so has woken already, or where the thread has ended.
        let _ = (&self.0).write(&[0]);
    }
}
