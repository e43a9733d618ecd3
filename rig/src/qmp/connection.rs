//! The thread of one client: reads requests, does them one after the other, writes replies.
//!
//! It owns its stream. It ends when the client has gone, or when the server ends. A client that does not read its replies
//! keeps only itself waiting.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use nix::poll::{PollFlags, PollTimeout};
use serde::Serialize;

use super::{
    ending::{Ending, Woken},
    framing::Framer,
    monitor::Monitor,
    session::Session,
};

/// Why a connection ends.
enum Over {
    /// The client hung up, or its socket failed.
    Gone,
    /// The server ends.
    Ended,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        // Whatever the system calls it, this client can't be spoken to any more, and no other is concerned.
        Self::Gone
    }
}

/// Serves one client until it leaves.
pub(super) fn serve(stream: &UnixStream, monitor: Arc<Monitor>, ending: &Ending) {
    let mut connection = Connection { stream, ending };
    if let Err(Over::Ended) = connection.run(&Session::new(monitor))
        && let Some(event) = ending.last_words()
    {
        // In one piece or not at all: who does not read can't be waited for now.
        let _ = connection.stream.write(&line(&event));
    }
}

struct Connection<'a> {
    stream: &'a UnixStream,
    ending: &'a Ending,
}

impl Connection<'_> {
    fn run(&mut self, session: &Session) -> Result<(), Over> {
        self.send(&Session::greeting())?;
        let mut framer = Framer::new();
        let mut bytes = [0; 16 * 1024];
        loop {
            let length = match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            for frame in framer.push(&bytes[..length]) {
                let reply = session.answer(frame);
                self.send(&reply)?;
                if session.quits() {
                    session.monitor().quit();
                    // Nothing more is done for this client: what ends the wait is the server's end or its own.
                    return self.wait(PollFlags::empty());
                }
            }
        }
    }

    fn send(&mut self, message: &impl Serialize) -> Result<(), Over> {
        let line = line(message);
        let mut left = &line[..];
        while !left.is_empty() {
            match self.stream.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags) -> Result<(), Over> {
        match self.ending.wait(self.stream, events, PollTimeout::NONE) {
            Ok(Woken::Ended) => Err(Over::Ended),
            Ok(_) => Ok(()),
            Err(_) => Err(Over::Gone),
        }
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys and finite numbers");
    line.extend_from_slice(b"\r\n");
    line
}
