//! Bad input to the command line, each option of each command: exit code 2, the value named, nothing on stdout, nothing
//! left behind, nothing run.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Commands, an option of theirs, and values that it can't have.
type Case = (
    &'static [&'static [&'static str]],
    &'static str,
    &'static [&'static str],
);

const RUN: &[&str] = &["run"];
const SWEEP: &[&str] = &["sweep"];
const FLOOR: &[&str] = &["floor"];
const COMPARE: &[&str] = &["compare"];
const SERVE: &[&str] = &["serve", "--console"];
const OBSERVE: &[&str] = &["observe", "--csv"];
const LIMIT: &[&str] = &["limit", "--pid", "1", "--quota", "25"];
const CHECK: &[&str] = &["check", "there", "--baseline", "there"];
const PLOT: &[&str] = &["plot", "there"];
const REPORT: &[&str] = &["report", "there"];
const MERGE: &[&str] = &["merge", "there"];

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/reference");

/// A number that fits nothing.
const HUGE: &str = "99999999999999999999999";

const CASES: &[Case] = &[
    (
        &[RUN, SWEEP, FLOOR, SERVE],
        "--ring",
        &["5000", "131072", "0", "-4096", "big", "4096.5", "4k", HUGE],
    ),
    (
        &[RUN, SWEEP, SERVE],
        "--quota",
        &["-5", "NaN", "inf", "0", "fast", "25MB", "1e999"],
    ),
    (&[RUN, SWEEP, SERVE], "--vm-quota", &["-5", "NaN", "0", "all"]),
    (
        &[RUN, SWEEP, FLOOR],
        "--period",
        &["50ms", "2m", "1", "soon", "-1s", "1 century"],
    ),
    (&[RUN, SWEEP], "--duration", &["0s", "soon", "-1s", "12", "1.5.2s"]),
    (&[RUN, SWEEP, FLOOR, SERVE], "--warm-up", &["soon", "-1s", "7"]),
    (&[RUN, SERVE], "--max-stall", &["soon", "-1s", "7"]),
    (
        &[RUN, SWEEP, FLOOR, SERVE],
        "--guest",
        &[
            "sequental",
            "hot-cold",
            "hot-cold:101/5",
            "burst:0/1s",
            "paced:fast",
            "mix:-1",
        ],
    ),
    (
        &[RUN, SWEEP, FLOOR, SERVE],
        "--limiter",
        &["qemu", "QEMU-7.2", "nothing"],
    ),
    (
        &[RUN, SWEEP, FLOOR, SERVE],
        "--vcpus",
        &["0", "65", "-1", "two", "1.5", HUGE],
    ),
    (&[RUN, SERVE], "--plugged", &["3", "0", "x"]),
    (&[RUN, SWEEP, FLOOR, SERVE], "--memory", &["0", "-1", "1GB", HUGE]),
    (&[RUN, SWEEP], "--probes", &["on", "yes"]),
    (
        &[RUN, SWEEP],
        "--vmm",
        &["xen", "qemu:", "qemu:/no/such/qemu", "attach:/no/such/socket"],
    ),
    (&[RUN, SWEEP, FLOOR, SERVE], "--seed", &["-1", "x", HUGE]),
    (
        &[RUN, SERVE],
        "--at",
        &[
            "10s throttle all",
            "ten set 500 all",
            "10s unplug 3",
            "10s set fast all",
            "10s set 5 9",
            "10s",
        ],
    ),
    (&[SWEEP], "--repetitions", &["0", "-1", "x"]),
    (&[SWEEP], "--repeat-disturbed", &["-1", "x"]),
    (&[SWEEP], "--shard", &["0/4", "5/4", "1", "1/0", "x/y"]),
    (&[SWEEP, COMPARE], "--resume", &["/no/such/folder"]),
    (&[FLOOR], "--lowest", &["-1", "0", "NaN", "x"]),
    (&[FLOOR], "--within", &["0", "-1", "NaN", "x"]),
    (&[RUN, SWEEP], "--replay", &["/no/such/trace"]),
    (&[OBSERVE], "--pid", &["0", "x", "-1", "4194305", HUGE]),
    (&[OBSERVE], "--interval", &["0s", "soon", "-1s", "5"]),
    (&[OBSERVE], "--duration", &["0s", "soon", "-1s", "5"]),
    (
        &[OBSERVE],
        "--metrics",
        &["9435", "nohost.invalid:1", "127.0.0.1:99999", "127.0.0.1"],
    ),
    (&[LIMIT], "--vcpu", &["x", "-1"]),
    (&[LIMIT], "--duration", &["soon", "-1s", "5"]),
    (&[LIMIT], "--max-stall", &["soon", "-1s"]),
    (&[LIMIT], "--at", &["10s throttle all", "10s set fast all"]),
    (&[CHECK], "--format", &["xml", "yaml"]),
    (&[PLOT], "--format", &["jpg"]),
    (&[PLOT], "--cell", &["x", "-1"]),
    (&[REPORT], "--format", &["pdf"]),
    (&[RUN, SWEEP, FLOOR, OBSERVE, LIMIT, MERGE], "--colour", &["x"]),
];

/// Whole lines, and what of each must be named.
const LINES: &[(&[&str], &str)] = &[
    (
        &["check", "/no/such/recording", "--baseline", "there"],
        "/no/such/recording",
    ),
    (&["check", "/etc", "--baseline", "there"], "/etc"),
    (&["plot", "/no/such/recording"], "/no/such/recording"),
    (&["report", "/no/such/recording"], "/no/such/recording"),
    (&["merge", "/no/such/recording", "--out", "there"], "/no/such/recording"),
    (&["compare", "/no/such/scenario.toml"], "/no/such/scenario.toml"),
    (&["run", "/no/such/scenario.toml"], "/no/such/scenario.toml"),
    (&["limit", "--pid", "x", "--quota", "25"], "x"),
    (&["limit", "--pid", "1", "--quota", "-25"], "-25"),
    (&["limit", "--pid", "1", "--quota", "NaN"], "NaN"),
    (&["limit", "--pid", "4194305", "--quota", "25"], "4194305"),
    (&["limit", "--quota", "25"], "--pid"),
    (&["limit", "--pid", "1"], "--quota"),
    (&["check"], "CANDIDATE"),
    (&["check", "there"], "--baseline"),
    (&["serve"], "--socket"),
    (
        &["serve", "--socket", "/no/such/folder/socket"],
        "/no/such/folder/socket",
    ),
    (&["rnu"], "rnu"),
    (&["doctor", "everything"], "everything"),
    (&["plot", REFERENCE, "--figure", "flor", "--out", "plots"], "flor"),
    (
        &[
            "plot",
            REFERENCE,
            "--cell",
            "99",
            "--figure",
            "convergence",
            "--out",
            "plots",
        ],
        "99",
    ),
    (
        &["trace", "export", "/no/such/trace", "--format", "csv"],
        "/no/such/trace",
    ),
    (&["trace", "export", "/etc/passwd", "--format", "csv"], "/etc/passwd"),
    (&["trace", "export", "x", "--format", "xlsx"], "xlsx"),
    (&["trace", "import"], "import"),
    (&[], "Usage"),
];

/// What is wrong with what it does, if anything is.
fn fault(dir: &Path, arguments: &[&str], named: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let left = fs::read_dir(dir).expect("the folder").count();
    let fault = if output.status.code() != Some(2) {
        format!("ends with {}", output.status)
    } else if !said.contains(named) {
        format!("does not name `{named}`")
    } else if !output.stdout.is_empty() {
        "prints data".to_owned()
    } else if said.contains("panicked") {
        "panics".to_owned()
    } else if left > 0 {
        "leaves something behind".to_owned()
    } else {
        return None;
    };
    Some(format!("{arguments:?} {fault}: {}", said.trim()))
}

#[test]
fn two_hundred_bad_values_are_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut count = LINES.len();
    let mut faults: Vec<String> = LINES
        .iter()
        .filter_map(|(arguments, named)| fault(dir.path(), arguments, named))
        .collect();
    for (commands, option, values) in CASES {
        for command in *commands {
            for value in *values {
                count += 1;
                let arguments = [command, &[*option, *value][..]].concat();
                // What follows the kind of a VMM is what is wrong with it.
                let named = match (*option, value.split_once(":/")) {
                    ("--colour", _) => *option,
                    ("--vmm", Some((_, path))) => path,
                    _ => *value,
                };
                faults.extend(fault(dir.path(), &arguments, named));
            }
        }
    }
    assert!(count >= 200, "{count} lines");
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
}
