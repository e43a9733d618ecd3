//! How the threads of a server learn that it ends: all wait on one pipe, whose other end it closes.

use std::{
    io::{self, PipeReader, PipeWriter, pipe},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::wire::Event;

/// Tells every thread of a server that it ends.
pub(super) struct Ending {
    /// Closed by the other end.
    pipe: PipeReader,
    /// Told to every client as the last thing.
    last_words: Mutex<Option<Event>>,
}

/// What a wait was ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Ready,
    TimedOut,
    Ended,
}

impl Ending {
    /// One that ends when what it comes with is dropped.
    pub(super) fn new() -> io::Result<(Self, PipeWriter)> {
        let (pipe, closer) = pipe()?;
        let last_words = Mutex::new(None);
        Ok((Self { pipe, last_words }, closer))
    }

    /// Waits until `fd` is ready for `events`, at most `timeout`, or until the server ends.
    pub(super) fn wait(&self, fd: impl AsFd, events: PollFlags, timeout: PollTimeout) -> nix::Result<Woken> {
        let mut fds = [
            PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(fd.as_fd(), events),
        ];
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) if fds[0].any() != Some(false) => return Ok(Woken::Ended),
                Ok(_) => return Ok(Woken::Ready),
            }
        }
    }

    /// What is told to every client as the last thing.
    pub(super) fn say(&self, last_words: Option<Event>) {
        *self.last_words.lock().unwrap_or_else(PoisonError::into_inner) = last_words;
    }

    pub(super) fn last_words(&self) -> Option<Event> {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
