//! The human monitor.

use super::*;

const HINT: &str = "[Please use 'info vcpu_dirty_limit' to query dirty limit for virtual CPU]\n";

#[test]
fn limits_in_both_spellings() {
    let client = Client::new();
    let info = || client.human("info vcpu_dirty_limit");
    let row = |vcpu: u32, rate: u32| format!("vcpu[{vcpu}], limit rate {rate} (MB/s), current rate 415 (MB/s)\n");
    let both = |rate| row(0, rate) + &row(1, rate);
    assert_eq!(info(), "Dirty page limit not enabled!\n");
    for (line, said, then) in [
        ("set_vcpu_dirty_limit 500", "", both(500)),
        ("set_vcpu_dirty_limit 0x10 1", "", row(0, 500) + &row(1, 16)),
        ("set_vcpu_dirty_limit 300 -1", "", both(300)),
        ("cancel_vcpu_dirty_limit 1", HINT, row(0, 300)),
        (
            "set_vcpu_dirty_limit 0",
            "",
            "Dirty page limit not enabled!\n".to_owned(),
        ),
        ("vcpu_dirty_limit -g on -1 500", HINT, both(500)),
        ("vcpu_dirty_limit on 0 300", HINT, row(0, 300) + &row(1, 500)),
        ("vcpu_dirty_limit off 0", HINT, row(1, 500)),
        ("vcpu_dirty_limit -g on 7 25", HINT, both(25)),
        (
            "vcpu_dirty_limit -g off",
            HINT,
            "Dirty page limit not enabled!\n".to_owned(),
        ),
        (
            "  cancel_vcpu_dirty_limit  ",
            HINT,
            "Dirty page limit not enabled!\n".to_owned(),
        ),
    ] {
        assert_eq!(client.human(line), said, "{line}");
        assert_eq!(info(), then, "after {line}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let client = Client::new();
    for (line, words) in [
        ("set_vcpu_dirty_limit", "the rate is missing"),
        ("set_vcpu_dirty_limit fast", "`fast` is not a whole number"),
        ("set_vcpu_dirty_limit 1.5", "`1.5` is not a whole number"),
        ("set_vcpu_dirty_limit 5 1 2", "more words than it takes"),
        ("set_vcpu_dirty_limit -5", "Error: a limit of -5"),
        ("set_vcpu_dirty_limit 5 7", "Error: vCPU 7 does not exist"),
        ("set_vcpu_dirty_limit 5 -2", "Error: vCPU -2 does not exist"),
        ("cancel_vcpu_dirty_limit 7", "Error: vCPU 7 does not exist"),
        ("vcpu_dirty_limit", "say `on` or `off`"),
        ("vcpu_dirty_limit on 0", "an index and a rate"),
        ("vcpu_dirty_limit on -1 500", "only after -g"),
        ("vcpu_dirty_limit off", "an index, or -g"),
        ("calc_dirty_rate", "the time in seconds is missing"),
        ("calc_dirty_rate 1", "give mode dirty-ring"),
        ("calc_dirty_rate -x 1", "no option -x"),
        ("calc_dirty_rate -r 0", "out of range"),
        ("calc_dirty_rate -r -b 1", "Either dirty ring or dirty bitmap"),
        ("calc_dirty_rate -r 1 512", "'sample-pages'"),
        ("info", "info vcpu_dirty_limit"),
        ("info nonsense", "unknown command: 'info nonsense'"),
        ("info dirty_rate now", "more words than it takes"),
        ("nonsense 1", "unknown command: 'nonsense'"),
        ("help nonsense", "unknown command: 'nonsense'"),
    ] {
        let said = client.human(line);
        assert!(said.contains(words), "{line}: {said}");
        assert!(said.ends_with('\n'), "{line}");
    }
    assert_eq!(client.human("info vcpu_dirty_limit"), "Dirty page limit not enabled!\n");
    assert_eq!(client.human(""), "");
}

#[test]
fn help_names_every_command_and_each_describes_itself() {
    let client = Client::new();
    let all = client.human("help");
    for line in all.lines() {
        let name = line.split(" -- ").next().unwrap_or_default();
        let words = name
            .split([' ', '|'])
            .take(if name.starts_with("info") { 2 } else { 1 });
        let name = words.collect::<Vec<_>>().join(" ");
        if name != "help" && name != "quit" {
            assert_eq!(client.human(&format!("help {name}")), format!("{line}\n"));
        }
    }
    assert!(client.human("help info").lines().count() >= 5);
    assert!(hmp::run(client.session.monitor(), "quit").quits);
}

#[test]
fn a_dirty_rate_is_shown_as_qemu_does() {
    let client = Client::new();
    assert_eq!(
        client.human("info dirty_rate"),
        "Status: unstarted\nStart Time: 0 (ms)\nSample Pages: 0 (per GB)\nPeriod: 0 (sec)\nMode: page-sampling\n\
         Dirty rate: (not ready)\n"
    );
    assert_eq!(
        client.human("calc_dirty_rate -r 60"),
        "Starting dirty rate measurement with period 60 seconds\n[Please use 'info dirty_rate' to check results]\n"
    );
    let said = client.human("info dirty_rate");
    assert!(said.starts_with("Status: measuring\nStart Time: "), "{said}");
    assert!(
        said.ends_with("Period: 60 (sec)\nMode: dirty-ring\nDirty rate: (not ready)\n"),
        "{said}"
    );
}

#[test]
fn words_are_completed() {
    assert_eq!(hmp::completions("set"), ["set_vcpu_dirty_limit"]);
    assert_eq!(hmp::completions("info v"), ["vcpu_dirty_limit", "version"]);
    assert_eq!(hmp::completions("help info d"), ["dirty_rate"]);
    assert_eq!(hmp::completions("vcpu_dirty_limit -g o"), ["on", "off"]);
    assert_eq!(hmp::completions("set_vcpu_dirty_limit 5"), [""; 0]);
    assert!(hmp::completions("").contains(&"quit"));
}

#[test]
fn it_is_reached_through_qmp_with_qemus_line_ends() {
    let client = Client::new();
    let run = |line: &str| client.run("human-monitor-command", &json!({ "command-line": line }));
    assert_eq!(run("info vcpu_dirty_limit"), "Dirty page limit not enabled!\r\n");
    assert_eq!(run("set_vcpu_dirty_limit 500"), "");
    assert!(!client.session.quits());
    run("quit");
    assert!(client.session.quits());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

    #[test]
    fn any_line_is_answered(words in proptest::collection::vec(proptest::sample::select(vec![
        "info", "vcpu_dirty_limit", "set_vcpu_dirty_limit", "cancel_vcpu_dirty_limit", "calc_dirty_rate", "help", "-g", "-r", "-1", "0x",
        "0x10", "99999999999999999999", "on", "off", "\"", "\\", "\u{e9}", "?", "",
    ]), 0..6)) {
        let client = Client::new();
        client.human(&words.join(" "));
        client.human("info vcpu_dirty_limit");
    }
}
