//! Accepts clients. QEMU serves one at a time; here many are, each by a thread of its own, so that one that is slow or
//! silent keeps no other waiting.
//!
//! The accepting thread owns the socket and the clients' threads. All of them wait on their socket and on one pipe, whose
//! other end closes when the server ends: so each ends at once, whatever it waits for.

use std::{
    io::PipeWriter,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::Context;
use nix::poll::{PollFlags, PollTimeout};

use super::{
    connection,
    ending::{Ending, Woken},
    monitor::Monitor,
    socket::Socket,
    wire::Event,
};

/// Clients that are served at a time; more wait until one leaves.
const MOST_CLIENTS: usize = 128;
/// How often it is looked whether one has left, while others wait.
const LOOK_EVERY_MS: u8 = 50;

/// A monitor on a Unix socket. Dropping it ends it.
pub struct Server {
    ending: Arc<Ending>,
    /// Closed to end it.
    closer: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// A socket that clients can connect to, though nobody answers yet.
pub struct Listening(Socket);

impl Server {
    /// Creates the socket at `path`: clients that connect wait until it is [served](Self::start).
    pub fn listen(path: &Path) -> anyhow::Result<Listening> {
        Ok(Listening(Socket::listen(path)?))
    }

    /// Serves `monitor` there; `warn` is told what goes wrong meanwhile.
    pub fn start(Listening(socket): Listening, monitor: Arc<Monitor>, warn: fn(&str)) -> anyhow::Result<Self> {
        let (ending, closer) = Ending::new().context("can't make a pipe")?;
        let ending = Arc::new(ending);
        let thread = thread::Builder::new().name("accept".into()).spawn({
            let ending = Arc::clone(&ending);
            move || accept(&socket, &monitor, &ending, warn)
        });
        Ok(Self {
            ending,
            closer: Some(closer),
            thread: Some(thread.context("can't start a thread")?),
        })
    }

    /// Tells every client `last_words`, hangs up, and removes the socket. Returns when every thread has ended: at once,
    /// unless a command of a client's still runs.
    pub fn end(mut self, last_words: Option<Event>) {
        self.ending.say(last_words);
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.closer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn accept(socket: &Socket, monitor: &Arc<Monitor>, ending: &Arc<Ending>, warn: fn(&str)) {
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let is_full = clients.len() >= MOST_CLIENTS;
        let (events, timeout) = if is_full {
            (PollFlags::empty(), PollTimeout::from(LOOK_EVERY_MS))
        } else {
            (PollFlags::POLLIN, PollTimeout::NONE)
        };
        match ending.wait(&socket.listener, events, timeout) {
            Ok(Woken::Ended) => break,
            Ok(Woken::TimedOut) => {}
            Ok(Woken::Ready) => match serve_next(socket, monitor, ending) {
                Ok(client) => clients.extend(client),
                Err(error) => {
                    warn(&format!("warning: a client could not be served: {error:#}"));
                    // Descriptors or threads have run out: others give theirs back in time.
                    if matches!(
                        ending.wait(&socket.listener, PollFlags::empty(), PollTimeout::from(LOOK_EVERY_MS)),
                        Ok(Woken::Ended)
                    ) {
                        break;
                    }
                }
            },
            Err(error) => {
                warn(&format!("warning: no more clients are accepted: {error}"));
                break;
            }
        }
        clients.retain(|client| !client.is_finished());
    }
    for client in clients {
        // A panic of the thread was reported where it happened; there is nothing to add.
        let _ = client.join();
    }
}

/// Accepts who waits and starts a thread for it; none where it has gone already.
fn serve_next(socket: &Socket, monitor: &Arc<Monitor>, ending: &Arc<Ending>) -> anyhow::Result<Option<JoinHandle<()>>> {
    let (stream, _) = match socket.listener.accept() {
        Ok(accepted) => accepted,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::ConnectionAborted
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    stream.set_nonblocking(true)?;
    let (monitor, ending) = (Arc::clone(monitor), Arc::clone(ending));
    let thread = thread::Builder::new()
        .name("client".into())
        .spawn(move || connection::serve(&stream, monitor, &ending))?;
    Ok(Some(thread))
}
