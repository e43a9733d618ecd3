//! What `doctor` says of the probes, and what a command then does: where process ids are others, and wherever tracefs is.

use std::process::{Command, Output};

use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use serde_json::Value;

const DIRTYRIG: &str = env!("CARGO_BIN_EXE_dirtyrig");
const HERE: &[Need] = &[Need::Kvm, Need::Bpf];

/// Takes tracefs away from a mount namespace of one's own.
const UNMOUNT: &str = "umount -l /sys/kernel/debug/tracing 2>/dev/null; umount -l /sys/kernel/tracing 2>/dev/null";

fn main() {
    run(vec![
        trial(
            "in a PID namespace both say that probes can't watch",
            HERE,
            pid_namespace,
        ),
        trial("tracefs is read wherever it is mounted", HERE, tracefs_elsewhere),
        trial("tracefs is never left mounted", HERE, tracefs_nowhere),
        trial("without privilege both say so", HERE, without_privilege),
    ]);
}

fn pid_namespace() -> Result<(), Failed> {
    let wrapper = ["unshare", "--pid", "--fork", "--mount-proc"];
    let report = doctor(&wrapper)?;
    assert_eq!(check(&report, "pid namespace")["status"], "missing");
    both_refuse(&report, &wrapper, "pid namespace")
}

fn without_privilege() -> Result<(), Failed> {
    let wrapper = [
        "setpriv",
        "--bounding-set=-bpf,-perfmon,-sys_admin",
        "--inh-caps=-bpf,-perfmon,-sys_admin",
    ];
    let report = doctor(&wrapper)?;
    assert_eq!(check(&report, "bpf")["status"], "missing");
    both_refuse(&report, &wrapper, "bpf")
}

fn tracefs_elsewhere() -> Result<(), Failed> {
    // A name that the kernel's list of mounts escapes.
    let folder = tempfile::Builder::new().prefix("a folder").tempdir()?;
    let at = folder.path().to_str().ok_or("a path in UTF-8")?;
    let script = format!("{UNMOUNT}; mount -t tracefs tracefs '{at}' && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let report = doctor(&wrapper)?;
    assert_eq!(report["facts"]["tracefs"]["state"], "readable");
    assert_eq!(report["facts"]["tracefs"]["at"], at);
    both_watch(&report, &wrapper)
}

fn tracefs_nowhere() -> Result<(), Failed> {
    // What the command leaves mounted turns its exit code into 99.
    let script = format!("{UNMOUNT}; \"$@\"; code=$?; ! grep ' tracefs ' /proc/self/mounts >&2 || exit 99; exit $code");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let report = doctor(&wrapper)?;
    assert_eq!(report["facts"]["tracefs"]["state"], "private");
    both_watch(&report, &wrapper)
}

/// `doctor` finds nothing amiss with tracefs and the probes, and a run that requires them goes through.
fn both_watch(report: &Value, wrapper: &[&str]) -> Result<(), Failed> {
    for name in ["tracefs", "probes"] {
        assert_ne!(check(report, name)["status"], "missing", "{}", check(report, name));
    }
    let (output, said) = short_run(wrapper)?;
    assert_eq!(output.status.code(), Some(0), "{said}");
    Ok(())
}

/// `doctor` gives the reason with which a run that requires the probes ends, and the remedy of its `cause`.
fn both_refuse(report: &Value, wrapper: &[&str], cause: &str) -> Result<(), Failed> {
    let probes = check(report, "probes");
    assert_eq!(probes["status"], "missing", "{probes}");
    let reason = probes["found"].as_str().ok_or("a reason")?;
    assert_eq!(probes["remedy"], check(report, cause)["remedy"], "{probes}");
    let (output, said) = short_run(wrapper)?;
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(reason), "doctor: {reason}\nrun: {said}");
    Ok(())
}

fn doctor(wrapper: &[&str]) -> Result<Value, Failed> {
    let output = wrapped(wrapper, &["doctor", "--json"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "the guest itself can be run: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("an array of checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("there is a check {name}"))
}

/// A run of a second that requires the probes.
fn short_run(wrapper: &[&str]) -> Result<(Output, String), Failed> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let out = out.to_str().ok_or("a path in UTF-8")?;
    let limits = [
        "--ring",
        "1024",
        "--quota",
        "100",
        "--duration",
        "1s",
        "--warm-up",
        "100ms",
    ];
    let arguments = [&["run", "--probes", "require", "--out", out], &limits[..]].concat();
    let output = wrapped(wrapper, &arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output, said))
}

fn wrapped(wrapper: &[&str], arguments: &[&str]) -> Result<Output, Failed> {
    Ok(Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(DIRTYRIG)
        .args(arguments)
        .output()?)
}
