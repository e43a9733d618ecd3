//! The side that sends commands and waits for their replies.
//!
//! A reply may take long without anything being wrong: QEMU answers nothing while it waits for a vCPU that sleeps off a
//! throttle. So while it waits, the client looks at the process behind the socket, and gives up at once if that has
//! ended or stands still, else only after [`REPLY`].

use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};

/// How long a server may take to greet: it does so at once, unless it serves somebody else.
const GREETING: Duration = Duration::from_secs(10);

/// How long a reply may take. QEMU's longest throttle is 99 times what its ring takes to fill, so 22 s on a host that
/// dirties 1,170 MiB/s with 65536 entries, and 140 s at 183 MiB/s.
pub const REPLY: Duration = Duration::from_mins(4);

/// How often the process behind the socket is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long it may stand still: job control may stop and continue it beside us.
const STOPPED: Duration = Duration::from_secs(1);

/// A connection whose capabilities are negotiated.
#[derive(Debug)]
pub struct QmpClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    /// What has been received of a line that is not complete yet.
    line: Vec<u8>,
    /// The process that listens on the socket.
    pid: Option<u32>,
    greeting: Value,
}

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
         client, or give QEMU one more socket (`-qmp unix:PATH,server=on,wait=off`)", path.display(), GREETING.as_secs()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
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
        stream.set_read_timeout(Some(LOOK_EVERY)).map_err(io)?;
        stream.set_write_timeout(Some(GREETING)).map_err(io)?;
        let pid = getsockopt(&stream, PeerCredentials)
            .ok()
            .and_then(|peer| u32::try_from(peer.pid()).ok())
            .filter(|&pid| pid != 0);
        let mut client = Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            line: Vec::new(),
            pid,
            greeting: Value::Null,
        };
        let busy = || QmpError::Busy { path: path.to_owned() };
        let greeting = client.receive(GREETING)?.ok_or_else(busy)?;
        if greeting.get("QMP").is_none() {
            return Err(client.not_qmp(greeting.to_string()));
        }
        client.greeting = greeting;
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
            _ => Err(self.not_qmp(self.greeting.to_string())),
        }
    }

    /// Sends a command and returns what it returns. Events that come in between are left out.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut message = json!({ "execute": command });
        if !arguments.is_null() {
            message["arguments"] = arguments.clone();
        }
        let begun = Instant::now();
        self.send(&message)?;
        loop {
            let left = REPLY.saturating_sub(begun.elapsed());
            let Some(mut reply) = self.receive(left)? else {
                return Err(QmpError::Hangs {
                    command: command.to_owned(),
                    waited: begun.elapsed(),
                });
            };
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = reply.get("error") {
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    reason: error["desc"].as_str().unwrap_or("it gives no reason").to_owned(),
                });
            }
            if reply.get("event").is_none() {
                return Err(self.not_qmp(reply.to_string()));
            }
        }
    }

    fn send(&mut self, message: &Value) -> Result<(), QmpError> {
        let text = format!("{message}\n");
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        sent.map_err(|error| self.broken(error))
    }

    /// The next object; `None` if there is none within `patience`.
    fn receive(&mut self, patience: Duration) -> Result<Option<Value>, QmpError> {
        let begun = Instant::now();
        let mut stopped_since = None;
        loop {
            match self.stream.read_until(b'\n', &mut self.line) {
                // The end of the stream; what came of a line is no object.
                Ok(_) if !self.line.ends_with(b"\n") => return Err(self.closed()),
                Ok(_) => {
                    let line = std::mem::take(&mut self.line);
                    return serde_json::from_slice(&line)
                        .map(Some)
                        .map_err(|_| self.not_qmp(String::from_utf8_lossy(&line).trim_end().to_owned()));
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

    fn not_qmp(&self, said: String) -> QmpError {
        QmpError::NotQmp {
            path: self.path.clone(),
            said,
        }
    }
}

/// The letter that says what a process is doing; `None` if it is gone.
fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, os::unix::net::UnixListener, thread};

    use super::*;

    const GREETED: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}}}"#;

    /// A server that greets with `greeting`, then answers each line with the next of `answers`, and closes.
    fn server(greeting: &'static str, answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            let say = |text: &str| writeln!(&stream, "{text}").expect("the client listens");
            say(greeting);
            for answer in answers {
                lines.next().expect("a command").expect("text");
                say(answer);
            }
        });
        (dir, path)
    }

    #[test]
    fn a_reply_is_told_from_the_events_before_it() {
        let (_dir, path) = server(
            GREETED,
            &[
                r#"{"return": {}}"#,
                "{\"event\": \"STOP\"}\n{\"return\": [{\"cpu-index\": 0}]}",
                r#"{"error": {"class": "GenericError", "desc": "incorrect cpu index specified"}}"#,
            ],
        );
        let mut client = QmpClient::connect(&path).expect("greeted");
        assert_eq!(client.version().expect("a version"), (10, 0, 2));
        assert_eq!(client.pid(), Some(std::process::id()));
        let reply = client.execute("query-cpus-fast", &Value::Null).expect("a reply");
        assert_eq!(reply[0]["cpu-index"], 0);
        let error = client
            .execute("set-vcpu-dirty-limit", &json!({"cpu-index": 7}))
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            "QEMU refuses `set-vcpu-dirty-limit`: incorrect cpu index specified"
        );
        let error = client.execute("quit", &Value::Null).expect_err("the server has gone");
        assert!(matches!(error, QmpError::Closed { .. }), "{error}");
    }

    #[test]
    fn what_is_no_qmp_server_is_told() {
        let (dir, path) = server("220 mail.example.org ESMTP", &[]);
        let error = QmpClient::connect(&path).expect_err("not greeted").to_string();
        assert!(error.contains("says `220 mail.example.org ESMTP`"), "{error}");
        let error = QmpClient::connect(&dir.path().join("none")).expect_err("nobody there");
        assert!(error.to_string().contains("server=on,wait=off"), "{error}");
    }
}
