//! Single requests and their replies.

use super::*;

const GENERIC: &str = "GenericError";
const NOT_FOUND: &str = "CommandNotFound";

#[test]
fn capabilities_come_first_and_once() {
    let client = Client::fresh();
    for line in [r#"{"execute": "query-version"}"#, r#"{"execute": "nonsense"}"#] {
        assert_eq!(client.refused(line).0, NOT_FOUND);
    }
    let (class, words) = client.refused(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#);
    assert!(class == GENERIC && words.contains("'oob'"), "{words}");
    let reply = client.say(r#"{"execute": "qmp_capabilities", "arguments": {"enable": []}, "id": [1]}"#);
    assert_eq!(reply, json!({ "return": {}, "id": [1] }));
    assert_eq!(client.refused(r#"{"execute": "qmp_capabilities"}"#).0, NOT_FOUND);
    client.run("query-version", &json!({}));
}

#[test]
fn errors_have_qemus_classes_and_name_what_is_wrong() {
    let client = Client::new();
    let set = |arguments: &str| format!(r#"{{"execute": "set-vcpu-dirty-limit", "arguments": {arguments}}}"#);
    let calc = |arguments: &str| format!(r#"{{"execute": "calc-dirty-rate", "arguments": {arguments}}}"#);
    for (line, class, words) in [
        (
            r#"{"execute": "nonsense"}"#.to_owned(),
            NOT_FOUND,
            "no command nonsense",
        ),
        (set("{}"), GENERIC, "'dirty-rate' is missing"),
        (set(r#"{"dirty-rate": "500"}"#), GENERIC, "'dirty-rate' is \"500\""),
        (set(r#"{"dirty-rate": 500.5}"#), GENERIC, "'dirty-rate' is 500.5"),
        (set(r#"{"dirty-rate": -5}"#), GENERIC, "'dirty-rate' is -5"),
        (set(r#"{"dirty-rate": null}"#), GENERIC, "'dirty-rate' is null"),
        (
            set(r#"{"dirty-rate": 5, "cpu-index": -1}"#),
            GENERIC,
            "vCPU -1 does not",
        ),
        (set(r#"{"dirty-rate": 5, "cpu-index": 2}"#), GENERIC, "vCPU 2 does not"),
        (
            set(r#"{"dirty-rate": 5, "cpu-index": "0"}"#),
            GENERIC,
            "'cpu-index' is \"0\"",
        ),
        (set(r#"{"dirty-rate": 5, "foo": 1}"#), GENERIC, "'foo' is not known"),
        (calc("{}"), GENERIC, "'calc-time' is missing"),
        (calc(r#"{"calc-time": 1}"#), GENERIC, "only mode dirty-ring"),
        (
            calc(r#"{"calc-time": 1, "mode": "dirty-bitmap"}"#),
            GENERIC,
            "only mode dirty-ring",
        ),
        (calc(r#"{"calc-time": 1, "mode": "foo"}"#), GENERIC, "'mode' is \"foo\""),
        (
            calc(r#"{"calc-time": 0, "mode": "dirty-ring"}"#),
            GENERIC,
            "50 to 60000 ms",
        ),
        (
            calc(r#"{"calc-time": 61, "mode": "dirty-ring"}"#),
            GENERIC,
            "50 to 60000 ms",
        ),
        (
            calc(r#"{"calc-time": 9223372036854775807, "mode": "dirty-ring"}"#),
            GENERIC,
            "out of range",
        ),
        (
            calc(r#"{"calc-time": 49, "calc-time-unit": "millisecond", "mode": "dirty-ring"}"#),
            GENERIC,
            "a calculation time of 49 ms",
        ),
        (
            calc(r#"{"calc-time": 1, "sample-pages": 512, "mode": "dirty-ring"}"#),
            GENERIC,
            "'sample-pages'",
        ),
        (
            r#"{"execute": "human-monitor-command"}"#.to_owned(),
            GENERIC,
            "'command-line' is missing",
        ),
        (
            r#"{"execute": "human-monitor-command", "arguments": {"command-line": "", "cpu-index": 7}}"#.to_owned(),
            GENERIC,
            "'cpu-index' is 7",
        ),
    ] {
        let (got, said) = client.refused(&line);
        assert_eq!(got, class, "{line}");
        assert!(said.contains(words), "{line}: {said}");
    }
    assert_eq!(
        client.run("query-vcpu-dirty-limit", &json!({})),
        json!([]),
        "nothing was set"
    );
    let long = client
        .refused(&format!(r#"{{"execute": "{}"}}"#, "a".repeat(100_000)))
        .1;
    assert!(long.len() < 300, "a client's nonsense is not said back at length");
}

#[test]
fn a_burst_is_set_in_milliseconds() {
    let client = Client::new();
    client.run("x-set-dirty-limit-burst", &json!({ "burst": 250 }));
    assert_eq!(client.vm.burst_ms.load(Ordering::Relaxed), 250);
    for (arguments, words) in [
        ("{}", "'burst' is missing"),
        (r#"{"burst": 0}"#, "'burst' is 0"),
        (r#"{"burst": -1}"#, "'burst' is -1"),
    ] {
        let line = format!(r#"{{"execute": "x-set-dirty-limit-burst", "arguments": {arguments}}}"#);
        let said = client.refused(&line).1;
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn limits_are_set_queried_and_cancelled() {
    let client = Client::new();
    let set = |arguments| client.run("set-vcpu-dirty-limit", &arguments);
    let limits = || client.run("query-vcpu-dirty-limit", &json!({}));
    let row = |cpu: u64, rate: u64| json!({ "cpu-index": cpu, "limit-rate": rate, "current-rate": 415 });
    assert_eq!(set(json!({ "dirty-rate": 500, "cpu-index": 1 })), json!({}));
    assert_eq!(limits(), json!([row(1, 500)]));
    set(json!({ "dirty-rate": 300 }));
    assert_eq!(limits(), json!([row(0, 300), row(1, 300)]));
    set(json!({ "dirty-rate": 0, "cpu-index": 1 }));
    assert_eq!(limits(), json!([row(0, 300)]), "0 cancels");
    client.run("cancel-vcpu-dirty-limit", &json!({ "cpu-index": 1 }));
    client.run("cancel-vcpu-dirty-limit", &json!({}));
    assert_eq!(limits(), json!([]));
    client.run("cancel-vcpu-dirty-limit", &json!({}));
    set(json!({ "dirty-rate": u64::MAX, "cpu-index": 0 }));
    assert_eq!(limits(), json!([row(0, u64::MAX)]));
}

#[test]
fn a_limit_below_one_does_not_read_as_none() {
    let client = Client::new();
    client
        .vm
        .set(Whom::Vcpus(Which::One(0)), Quota::new(0.25).expect("a quota"))
        .expect("it is there");
    assert_eq!(client.run("query-vcpu-dirty-limit", &json!({}))[0]["limit-rate"], 1);
}

#[test]
fn a_dirty_rate_is_measured_once_at_a_time() {
    let client = Client::new();
    let rate = || client.run("query-dirty-rate", &json!({ "calc-time-unit": "millisecond" }));
    assert_eq!(
        client.run("query-dirty-rate", &json!({})),
        json!({ "status": "unstarted", "mode": "page-sampling", "start-time": 0, "calc-time": 0,
            "calc-time-unit": "second", "sample-pages": 0 })
    );
    let asked = json!({ "calc-time": 60_000, "calc-time-unit": "millisecond", "mode": "dirty-ring" });
    assert_eq!(client.run("calc-dirty-rate", &asked), json!({}));
    assert_eq!(rate()["status"], "measuring");
    assert_eq!(rate()["calc-time"], 60_000);
    let again = client.refused(&json!({ "execute": "calc-dirty-rate", "arguments": asked }).to_string());
    assert!(again.1.contains("already"), "{}", again.1);

    // The minute is not waited for: the measurement ends with the monitor.
    let client = Client::new();
    let asked = json!({ "calc-time": 50, "calc-time-unit": "millisecond", "mode": "dirty-ring" });
    client.run("calc-dirty-rate", &asked);
    let rate = || client.run("query-dirty-rate", &json!({}));
    while rate()["status"] == "measuring" {
        std::thread::yield_now();
    }
    let measured = rate();
    assert_eq!(measured["status"], "measured");
    assert_eq!(measured["mode"], "dirty-ring");
    let vcpus = measured["vcpu-dirty-rate"].as_array().expect("each vCPU").clone();
    assert_eq!(vcpus[1], json!({ "id": 1, "dirty-rate": 0 }));
    // 4096 MiB in 50 ms, or in longer on a machine that is busy.
    assert!(
        (1..=81_920).contains(&vcpus[0]["dirty-rate"].as_u64().expect("a rate")),
        "{measured}"
    );
    assert_eq!(measured["dirty-rate"], vcpus[0]["dirty-rate"], "the VM's is the sum");
}

#[test]
fn what_there_is_can_be_asked_for() {
    let client = Client::new();
    let commands = client.run("query-commands", &json!({}));
    let names: Vec<&str> = commands
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|command| command["name"].as_str())
        .collect();
    assert!(
        names.contains(&"set-vcpu-dirty-limit") && names.contains(&"quit"),
        "{names:?}"
    );
    for name in &names {
        // Some need arguments, but each is there.
        let class = client.say(&format!(r#"{{"execute": "{name}"}}"#))["error"]["class"].clone();
        assert!(class != NOT_FOUND || *name == "qmp_capabilities", "{name}");
    }
    assert!(client.session.quits(), "quit was among them");
    assert_eq!(
        client.run("query-status", &json!({})),
        json!({ "running": true, "status": "running" })
    );
    let cpus = client.run("query-cpus-fast", &json!({}));
    assert_eq!((&cpus[1]["cpu-index"], &cpus[1]["thread-id"]), (&json!(1), &json!(71)));
    assert_eq!(cpus[0].get("thread-id"), None, "not known, so no number");
    let greeting = serde_json::to_value(Session::greeting()).expect("JSON");
    assert_eq!(greeting["QMP"]["version"], client.run("query-version", &json!({})));
    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
}
