//! The client, against servers that speak in pieces, slowly, unasked, or not at all as they should.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::qmp::client::{MOST_EVENTS, QmpClient, QmpError};

const GREETED: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}}}"#;
const DONE: &str = r#"{"return": {}}"#;

/// A server that says `greeting`, then hands each command and the stream to `answer` until that says false, and closes.
fn serve(
    greeting: &'static str,
    mut answer: impl FnMut(&Value, &mut UnixStream) -> bool + Send + 'static,
) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("qmp");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        say(&mut stream, greeting);
        while let Some(Ok(line)) = lines.next() {
            if !answer(&serde_json::from_str(&line).expect("JSON"), &mut stream) {
                break;
            }
        }
    });
    (dir, path)
}

/// A server that answers each command with the next of `answers`.
fn server(greeting: &'static str, answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
    let mut answers = answers.iter();
    serve(greeting, move |_, stream| {
        answers.next().inspect(|answer| say(stream, answer)).is_some() && answers.len() > 0
    })
}

fn say(stream: &mut UnixStream, text: &str) {
    writeln!(stream, "{text}").expect("the client listens");
}

#[test]
fn a_reply_is_told_from_the_events_before_it() {
    let (_dir, path) = server(
        GREETED,
        &[
            DONE,
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
    let event = client.next_event(Duration::ZERO).expect("it came before");
    assert_eq!(event.expect("kept").name, "STOP");
    let error = client.next_event(Duration::ZERO).expect_err("no more can come");
    assert!(matches!(error, QmpError::Closed { .. }), "{error}");
}

#[test]
fn what_is_no_qmp_server_is_told() {
    let (dir, path) = server("220 mail.example.org ESMTP", &[]);
    let error = QmpClient::connect(&path).expect_err("not greeted").to_string();
    assert!(error.contains("says `220 mail.example.org ESMTP`"), "{error}");
    let error = QmpClient::connect(&dir.path().join("none")).expect_err("nobody there");
    assert!(error.to_string().contains("server=on,wait=off"), "{error}");
    let (_dir, path) = server(r#"{"return": {}}"#, &[]);
    let error = QmpClient::connect(&path).expect_err("a reply is no greeting");
    assert!(matches!(error, QmpError::NotQmp { .. }), "{error}");
}

#[test]
fn events_before_the_greeting_are_kept_in_order() {
    const EARLY: &str = concat!(
        r#"{"event": "RESUME", "timestamp": {"seconds": 1267020223, "microseconds": 435656}}"#,
        "\n",
        r#"{"event": "MIGRATION", "data": {"status": "setup"}, "timestamp": {"seconds": -1, "microseconds": -1}}"#,
        "\n",
        r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}}}"#,
    );
    let (_dir, path) = server(EARLY, &[DONE, "{\"event\": \"STOP\"}\n{\"return\": 7}"]);
    let mut client = QmpClient::connect(&path).expect("greeted");
    assert_eq!(client.execute("query", &Value::Null).expect("a reply"), 7);
    let mut event = || client.next_event(Duration::ZERO).expect("connected").expect("kept");
    let resume = event();
    assert_eq!(
        (resume.name.as_str(), resume.data, resume.at),
        ("RESUME", Value::Null, Some(Duration::new(1_267_020_223, 435_656_000)))
    );
    let migration = event();
    assert_eq!(
        (migration.name.as_str(), migration.data, migration.at),
        ("MIGRATION", json!({"status": "setup"}), None),
        "the server has no clock"
    );
    assert_eq!(event().name, "STOP");
}

#[test]
fn what_comes_byte_by_byte_is_put_together() {
    let (_dir, path) = serve(GREETED, |_, stream| {
        // The é ends a piece in its middle.
        for byte in "{\"event\": \"é\"}\n{\"return\": {\"a\": 1}}\n".as_bytes() {
            stream.write_all(&[*byte]).expect("the client listens");
            thread::sleep(Duration::from_millis(2));
        }
        true
    });
    let mut client = QmpClient::connect(&path).expect("greeted");
    for _ in 0..2 {
        assert_eq!(client.execute("query", &Value::Null).expect("a reply"), json!({"a": 1}));
    }
    for _ in 0..3 {
        let event = client.next_event(Duration::ZERO).expect("connected");
        assert_eq!(event.expect("kept").name, "é");
    }
}

#[test]
fn a_piece_of_an_event_is_kept_while_nobody_waits() {
    let (_dir, path) = serve(GREETED, |command, stream| {
        say(stream, DONE);
        if command["execute"] == "begin" {
            write!(stream, "{{\"event\": \"MIGRA").expect("the client listens");
            thread::sleep(Duration::from_millis(300));
            writeln!(stream, "TION_PASS\", \"data\": {{\"pass\": 2}}}}").expect("the client listens");
        }
        true
    });
    let mut client = QmpClient::connect(&path).expect("greeted");
    client.execute("begin", &Value::Null).expect("a reply");
    // Nothing whole is there yet, or it is there already on a slow machine: either way it comes once.
    let early = client.next_event(Duration::from_millis(1)).expect("connected");
    let event = early.or_else(|| client.next_event(Duration::from_secs(20)).expect("connected"));
    let event = event.expect("it has come");
    assert_eq!(
        (event.name.as_str(), event.data),
        ("MIGRATION_PASS", json!({"pass": 2}))
    );
    client.execute("query", &Value::Null).expect("in step");
    assert_eq!(client.next_event(Duration::from_millis(1)).expect("connected"), None);
}

#[test]
fn a_slow_reply_is_waited_for_and_a_late_one_is_not_the_next_ones() {
    let (_dir, path) = serve(GREETED, |command, stream| {
        let number = command["id"].as_u64().expect("every command has a number");
        if command["execute"] == "slow" {
            // Longer than the client goes without looking at the process.
            thread::sleep(Duration::from_millis(450));
            say(
                stream,
                &json!({"return": "of an earlier one", "id": number - 1}).to_string(),
            );
            say(stream, &json!({"event": "STOP"}).to_string());
        }
        say(stream, &json!({"return": "its own", "id": number}).to_string());
        true
    });
    let mut client = QmpClient::connect(&path).expect("greeted");
    assert_eq!(client.execute("slow", &Value::Null).expect("a reply"), "its own");
    assert_eq!(client.execute("query", &Value::Null).expect("a reply"), "its own");
    let stop = client.next_event(Duration::ZERO).expect("connected").expect("kept");
    assert_eq!(stop.name, "STOP");
}

#[test]
fn events_that_nobody_takes_are_bounded_and_counted() {
    let (_dir, path) = serve(GREETED, |command, stream| {
        if command["execute"] == "flood" {
            for number in 0..MOST_EVENTS + 3 {
                say(stream, &json!({"event": "E", "data": number}).to_string());
            }
        }
        say(stream, DONE);
        true
    });
    let mut client = QmpClient::connect(&path).expect("greeted");
    client.execute("flood", &Value::Null).expect("a reply");
    assert_eq!(client.lost_events(), 3);
    let oldest = client.next_event(Duration::ZERO).expect("connected").expect("kept");
    assert_eq!(oldest.data, 3, "the newest are kept");
}

#[test]
fn a_reply_over_several_lines_and_two_on_one_are_told_apart() {
    // As `-mon pretty=on` writes it; and an event in the same piece as a reply.
    let (_dir, path) = server(
        "{\n    \"QMP\": {\n        \"version\": {}\n    }\n}",
        &[
            DONE,
            "{\n  \"return\": [\n    1\n  ]\n} {\"event\": \"STOP\"}\r\n",
            DONE,
        ],
    );
    let mut client = QmpClient::connect(&path).expect("greeted");
    assert_eq!(client.execute("query", &Value::Null).expect("a reply"), json!([1]));
    let event = client.next_event(Duration::from_secs(20)).expect("connected");
    assert_eq!(event.expect("it came in one piece with the reply").name, "STOP");
}

#[test]
fn a_message_without_end_is_given_up_and_a_time_beyond_all_is_none() {
    let (_dir, path) = serve(GREETED, |command, stream| {
        if command["execute"] == "flood" {
            // It is hung up on before the end.
            while stream.write_all(&[b'['; 1 << 12]).is_ok() {}
            return false;
        }
        let late = json!({"event": "E", "timestamp": {"seconds": u64::MAX, "microseconds": u64::MAX}});
        say(stream, &late.to_string());
        say(stream, DONE);
        true
    });
    let mut client = QmpClient::connect(&path).expect("greeted");
    assert_eq!(
        client.next_event(Duration::ZERO).expect("connected").expect("kept").at,
        None
    );
    let error = client.execute("flood", &Value::Null).expect_err("no end").to_string();
    assert!(error.contains("deeper than"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_messages_or_an_error(words in proptest::collection::vec(proptest::sample::select(vec![
        "{", "}", "[", "]", "\"", ":", ",", "\\", "\n", "null", "-1", "1e999", "QMP", "return", "event", "timestamp", "\u{e9}",
        "{\"event\": \"E\", \"timestamp\": 5}", "{\"return\": {}}", "{\"error\": 7}",
    ]), 0..30)) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        let said = words.concat();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            // The client may have hung up already.
            let _ = writeln!(stream, "{GREETED}\n{DONE}\n{said}");
        });
        if let Ok(mut client) = QmpClient::connect(&path) {
            while let Ok(Some(_)) = client.next_event(Duration::from_secs(20)) {}
            let _ = client.execute("query", &Value::Null);
        }
        server.join().expect("it does not panic");
    }
}
