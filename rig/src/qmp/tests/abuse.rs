//! A server on a real socket, and clients that mean no good: none does harm to another or to the server's end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use super::*;
use crate::qmp::{
    framing::LONGEST_REQUEST,
    wire::{Event, Timestamp},
};

/// A hang shows as an error instead.
const PATIENCE: Duration = Duration::from_mins(1);

struct Served {
    vm: Arc<Remembering>,
    server: Server,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("qmp");
        let vm = Arc::new(Remembering::default());
        let listening = Server::listen(&path).expect("a socket");
        let server = Server::start(listening, Arc::new(Monitor::new(vm.clone())), |text| {
            eprintln!("{text}");
        })
        .expect("a server");
        Self {
            vm,
            server,
            path,
            _dir: dir,
        }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        BufReader::new(stream)
    }

    /// Whether a client that means well is served.
    fn check(&self) {
        let mut client = self.connect();
        assert!(read(&mut client)["QMP"].is_object());
        write(
            &client,
            b"{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-status\", \"id\": 5}",
        );
        assert_eq!(read(&mut client), json!({ "return": {} }));
        assert_eq!(read(&mut client)["id"], 5);
    }
}

fn write(client: &BufReader<UnixStream>, bytes: &[u8]) {
    client.get_ref().write_all(bytes).expect("the server reads");
}

fn read(client: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    client.read_line(&mut line).expect("the server answers");
    assert!(line.ends_with("\r\n"), "{line:?}");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn what_is_no_request_is_answered_and_survived() {
    let served = Served::new();
    let mut client = served.connect();
    read(&mut client);
    for bytes in [
        &b"hello\n"[..],
        b"}\n",
        b"{\"execute\": foo}\n",
        b"{\"execute\": \"a\xff\xfe\"}\n",
        b"\x00\x01\x02\n",
        b"{\"execute\": \"open\n",
        b"GET / HTTP/1.1\n",
        &[&b"[".repeat(5000)[..], b"\n"].concat(),
        &[b"{\"execute\": \"", &b"a".repeat(3 * LONGEST_REQUEST)[..], b"\"}\n"].concat(),
    ] {
        write(&client, bytes);
        let reply = read(&mut client);
        assert_eq!(reply["error"]["class"], "GenericError", "{reply}");
    }
    write(&client, b"{\"execute\": \"qmp_capabilities\"}\n");
    assert_eq!(read(&mut client), json!({ "return": {} }), "it is still understood");
    served.check();
}

#[test]
fn a_request_may_come_byte_by_byte_and_many_at_once() {
    let served = Served::new();
    let mut client = served.connect();
    read(&mut client);
    for byte in b"{\"execute\":\n\"qmp_capabilities\"}" {
        write(&client, &[*byte]);
    }
    assert_eq!(read(&mut client), json!({ "return": {} }));
    write(&client, &b"{\"execute\": \"query-version\"}".repeat(200));
    for _ in 0..200 {
        assert!(read(&mut client)["return"]["qemu"].is_object());
    }
}

#[test]
fn a_half_closed_socket_gets_its_replies_and_then_the_end() {
    let served = Served::new();
    let mut client = served.connect();
    write(
        &client,
        b"{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"query-st",
    );
    client.get_ref().shutdown(Shutdown::Write).expect("it is open");
    read(&mut client);
    assert_eq!(read(&mut client), json!({ "return": {} }));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end");
    assert!(rest.is_empty(), "half a request is none");
    served.check();
}

#[test]
fn who_does_not_read_keeps_nobody_else_waiting() {
    let served = Served::new();
    let deaf = served.connect();
    write(&deaf, b"{\"execute\": \"qmp_capabilities\"}\n");
    deaf.get_ref().set_nonblocking(true).expect("a socket");
    // Until the server, whose replies nobody reads, reads no more either.
    let request = b"{\"execute\": \"query-commands\"}".repeat(100);
    while deaf.get_ref().write(&request).is_ok() {}
    served.check();
    served.server.end(None);
}

#[test]
fn a_hundred_clients_are_served_at_once_and_all_are_told_of_the_end() {
    let served = Served::new();
    let mut clients: Vec<_> = (0..100).map(|_| served.connect()).collect();
    for client in &mut clients {
        read(client);
        write(client, b"{\"execute\": \"qmp_capabilities\"}\n");
    }
    for client in &mut clients {
        assert_eq!(read(client), json!({ "return": {} }));
    }
    // Half of them leave without a word, others come.
    clients.truncate(50);
    served.check();
    let event = Event {
        event: "SHUTDOWN".to_owned(),
        data: json!({ "guest": false }),
        timestamp: Timestamp {
            seconds: 1,
            microseconds: 2,
        },
    };
    let path = served.path.clone();
    served.server.end(Some(event));
    assert!(!path.exists(), "the socket is gone");
    for mut client in clients {
        assert_eq!(
            read(&mut client),
            json!({ "event": "SHUTDOWN", "data": { "guest": false },
                "timestamp": { "seconds": 1, "microseconds": 2 } })
        );
        assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    }
}

#[test]
fn more_clients_than_are_served_wait_for_their_turn() {
    let served = Served::new();
    let mut clients: Vec<_> = (0..128).map(|_| served.connect()).collect();
    for client in &mut clients {
        read(client);
    }
    let mut next = served.connect();
    clients.pop();
    assert!(read(&mut next)["QMP"].is_object(), "one has left");
    served.server.end(None);
}

#[test]
fn quit_is_answered_before_it_is_done() {
    let served = Served::new();
    let mut client = served.connect();
    write(
        &client,
        b"{\"execute\": \"qmp_capabilities\"}{\"execute\": \"quit\", \"id\": 1}{\"execute\": \"query-status\"}",
    );
    read(&mut client);
    read(&mut client);
    assert_eq!(read(&mut client), json!({ "return": {}, "id": 1 }));
    while !served.vm.quit.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    served.server.end(None);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0, "nothing comes after quit");
}
