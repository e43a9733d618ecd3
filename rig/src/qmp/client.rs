//! The side that sends commands and waits for their replies, and is told of events.
//!
//! A reply may take long without anything being wrong: QEMU answers nothing while it waits for a vCPU that sleeps off a
//! throttle. So while it waits, the client looks at the process behind the socket, and gives up at once if that has
//! ended or stands still, else only after [`REPLY`].
//!
//! An event may come at any moment: before the greeting, between a command and its reply, or when nobody asks. The
//! client keeps each until it is taken. Every command carries a number, which the reply repeats, so the reply to one that
//! was given up is never taken for the reply to the next.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, ErrorKind, IoSlice, Write as _},
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dirtyrig_probes::identity::proc_text;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};
use serde_json::{Value, json};

mod error;

pub use self::error::QmpError;
use super::framing::{Frame, Framer};

/// How long a server may take to greet: it does so at once, unless it serves somebody else.
const GREETING: Duration = Duration::from_secs(10);

/// How long a reply may take. QEMU's longest throttle is 99 times what its ring takes to fill. With 65536 entries that is 22 s on
/// a host that dirties 1,170 MiB/s, and 140 s at 183 MiB/s.
pub const REPLY: Duration = Duration::from_mins(4);

/// How often the process behind the socket is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The shortest wait that is asked of the system, for which zero means forever.
const SHORTEST: Duration = Duration::from_micros(100);

/// How long it may stand still: job control may stop and continue it beside us.
const STOPPED: Duration = Duration::from_secs(1);

/// Events that are kept for whoever takes them. A client that never does must not grow with its server's life.
pub const MOST_EVENTS: usize = 4096;

/// Bytes of a message, many times QEMU's longest (its own schema, a quarter of a MiB).
const LONGEST_MESSAGE: usize = 16 << 20;

/// What of a message that is none is told.
const SAID: usize = 200;

/// What a server says unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, such as `STOP`.
    pub name: String,
    /// What it says beside, null for nothing.
    pub data: Value,
    /// When it happened by the server's clock, since 1970; `None` where it doesn't say.
    pub at: Option<Duration>,
}

/// A connection whose capabilities are negotiated.
#[derive(Debug)]
pub struct QmpClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    framer: Framer,
    /// What was received and not looked at yet.
    received: VecDeque<Frame>,
    /// The process that listens on the socket.
    pid: Option<u32>,
    greeting: Value,
    /// The number of the last command.
    command: u64,
    /// Those that nobody has taken, the oldest first.
    events: VecDeque<Event>,
    lost_events: u64,
}

impl QmpClient {
    /// Connects to the server that listens at `path`.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        let io = |source| QmpError::Io {
            path: path.to_owned(),
            source,
        };
        let stream = UnixStream::connect(path).map_err(|source| QmpError::Connect {
            path: path.to_owned(),
            source,
        })?;
        stream.set_write_timeout(Some(GREETING)).map_err(io)?;
        let pid = getsockopt(&stream, PeerCredentials)
            .ok()
            .and_then(|peer| u32::try_from(peer.pid()).ok())
            .filter(|&pid| pid != 0);
        let mut client = Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            framer: Framer::up_to(LONGEST_MESSAGE),
            received: VecDeque::new(),
            pid,
            greeting: Value::Null,
            command: 0,
            events: VecDeque::new(),
            lost_events: 0,
        };
        client.greeting = client.greeted()?;
        client.execute("qmp_capabilities", &Value::Null)?;
        Ok(client)
    }

    /// The process that made the socket, as far as the system says.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The version in the greeting: major, minor, micro.
    pub fn version(&self) -> Result<(u32, u32, u32), QmpError> {
        let version = &self.greeting["QMP"]["version"]["qemu"];
        let number = |name: &str| version[name].as_u64().and_then(|number| u32::try_from(number).ok());
        match (number("major"), number("minor"), number("micro")) {
            (Some(major), Some(minor), Some(micro)) => Ok((major, minor, micro)),
            _ => Err(self.not_qmp(&self.greeting.to_string())),
        }
    }

    /// Sends a command and returns what it returns. Events that come in between are kept.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        self.ask(command, arguments, None)
    }

    /// The same for a command that takes an open file, such as `getfd`.
    pub fn execute_with(
        &mut self,
        command: &str,
        arguments: &Value,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Value, QmpError> {
        self.ask(command, arguments, Some(descriptor))
    }

    fn ask(&mut self, command: &str, arguments: &Value, descriptor: Option<BorrowedFd<'_>>) -> Result<Value, QmpError> {
        self.command += 1;
        let mut message = json!({ "execute": command, "id": self.command });
        if !arguments.is_null() {
            message["arguments"] = arguments.clone();
        }
        let begun = Instant::now();
        self.send(&message, descriptor)?;
        loop {
            let left = REPLY.saturating_sub(begun.elapsed());
            let Some(mut reply) = self.receive(left)? else {
                return Err(QmpError::Hangs {
                    command: command.to_owned(),
                    waited: begun.elapsed(),
                });
            };
            if self.keep(&reply)? || self.is_late(&reply) {
                continue;
            }
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            return Err(QmpError::Refused {
                command: command.to_owned(),
                reason: reply["error"]["desc"]
                    .as_str()
                    .unwrap_or("it gives no reason")
                    .to_owned(),
            });
        }
    }

    /// The oldest event that was not taken yet; waits for one, `patience` at most. Those that came before the server
    /// closed its socket can still be taken.
    pub fn next_event(&mut self, patience: Duration) -> Result<Option<Event>, QmpError> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(message) = self.receive(patience.saturating_sub(begun.elapsed()))? else {
                return Ok(None);
            };
            if !self.keep(&message)? && !self.is_late(&message) {
                return Err(self.not_qmp(&message.to_string()));
            }
        }
    }

    /// Events that were dropped because [`MOST_EVENTS`] later ones came and nobody took any.
    pub fn lost_events(&self) -> u64 {
        self.lost_events
    }

    /// Waits for the greeting.
    fn greeted(&mut self) -> Result<Value, QmpError> {
        let begun = Instant::now();
        loop {
            let message = self.receive(GREETING.saturating_sub(begun.elapsed()))?;
            let message = message.ok_or_else(|| QmpError::Busy {
                path: self.path.clone(),
                waited: GREETING,
            })?;
            if message.get("QMP").is_some() {
                return Ok(message);
            }
            if message.get("event").is_none() {
                return Err(self.not_qmp(&message.to_string()));
            }
            self.keep(&message)?;
        }
    }

    /// Keeps a message that is an event; false for a reply. An error for what is neither.
    fn keep(&mut self, message: &Value) -> Result<bool, QmpError> {
        let Some(name) = message["event"].as_str() else {
            let is_reply = message.get("return").is_some() || message.get("error").is_some();
            return if is_reply {
                Ok(false)
            } else {
                Err(self.not_qmp(&message.to_string()))
            };
        };
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
            self.lost_events += 1;
        }
        let part = |name: &str| message["timestamp"][name].as_u64();
        let at = part("seconds")
            .zip(part("microseconds"))
            .and_then(|(seconds, micros)| Duration::from_secs(seconds).checked_add(Duration::from_micros(micros)));
        self.events.push_back(Event {
            name: name.to_owned(),
            data: message["data"].clone(),
            at,
        });
        Ok(true)
    }

    /// Whether a reply is to a command before the last. Some errors come without a number, and are the last's.
    fn is_late(&self, reply: &Value) -> bool {
        reply["id"].as_u64().is_some_and(|id| id < self.command)
    }

    fn send(&mut self, message: &Value, descriptor: Option<BorrowedFd<'_>>) -> Result<(), QmpError> {
        let text = format!("{message}\n");
        let mut rest = text.as_bytes();
        if let Some(descriptor) = descriptor {
            let descriptors = [descriptor.as_raw_fd()];
            let sent = sendmsg::<()>(
                self.stream.get_ref().as_raw_fd(),
                &[IoSlice::new(rest)],
                &[ControlMessage::ScmRights(&descriptors)],
                MsgFlags::empty(),
                None,
            );
            let sent = sent.map_err(|errno| self.broken(errno.into()))?;
            rest = &rest[sent..];
        }
        let sent = self.stream.get_mut().write_all(rest);
        sent.map_err(|error| self.broken(error))
    }

    /// The next object; `None` if there is none within `patience`.
    fn receive(&mut self, patience: Duration) -> Result<Option<Value>, QmpError> {
        let begun = Instant::now();
        let mut stopped_since = None;
        loop {
            if let Some(frame) = self.received.pop_front() {
                return self.message(frame).map(Some);
            }
            let wait = patience.saturating_sub(begun.elapsed()).clamp(SHORTEST, LOOK_EVERY);
            let set = self.stream.get_ref().set_read_timeout(Some(wait));
            set.map_err(|error| self.broken(error))?;
            match self.stream.fill_buf() {
                // The end of the stream; what came of a message is none.
                Ok([]) => return Err(self.closed()),
                Ok(bytes) => {
                    let length = bytes.len();
                    self.received.extend(self.framer.push(bytes));
                    self.stream.consume(length);
                    if !self.received.is_empty() {
                        continue;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(self.broken(error)),
            }
            match self.pid.map(|pid| (pid, process_state(pid))) {
                Some((_, None | Some('Z' | 'X'))) => return Err(self.closed()),
                Some((pid, Some('T' | 't'))) => {
                    if stopped_since.get_or_insert_with(Instant::now).elapsed() >= STOPPED {
                        return Err(QmpError::Stopped { pid });
                    }
                }
                _ => stopped_since = None,
            }
            if begun.elapsed() >= patience {
                return Ok(None);
            }
        }
    }

    /// What a frame says.
    fn message(&self, frame: Frame) -> Result<Value, QmpError> {
        match frame {
            Frame::Value(bytes) => {
                serde_json::from_slice(&bytes).map_err(|_| self.not_qmp(&String::from_utf8_lossy(&bytes)))
            }
            Frame::Bad(error) => Err(self.not_qmp(&error.to_string())),
        }
    }

    fn closed(&self) -> QmpError {
        QmpError::Closed {
            path: self.path.clone(),
        }
    }

    fn broken(&self, source: io::Error) -> QmpError {
        match source.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.closed(),
            _ => QmpError::Io {
                path: self.path.clone(),
                source,
            },
        }
    }

    fn not_qmp(&self, said: &str) -> QmpError {
        QmpError::NotQmp {
            path: self.path.clone(),
            said: said.trim_end().chars().take(SAID).collect(),
        }
    }
}

/// The letter that says what a process is doing; `None` if it is gone.
fn process_state(pid: u32) -> Option<char> {
    let stat = proc_text(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
