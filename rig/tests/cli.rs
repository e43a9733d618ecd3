//! The command line, without a machine: bad input is refused before anything runs, with a message that helps.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// An empty folder to run in, so that nothing of a test's ends up in the source.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn dirtyrig(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs `arguments`, which must be refused with code 2, nothing on stdout, and each of `expected` on stderr.
fn refused(arguments: &[&str], expected: &[&str]) {
    let dir = folder();
    refused_in(dir.path(), arguments, expected);
    let left: Vec<_> = fs::read_dir(dir.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{arguments:?} left {left:?}");
}

fn refused_in(dir: &Path, arguments: &[&str], expected: &[&str]) {
    let output = dirtyrig(dir, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for words in expected {
        assert!(
            said.contains(words),
            "{arguments:?} should say `{words}`, but says: {said}"
        );
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn rings_that_can_not_be_had() {
    for command in ["run", "sweep", "floor"] {
        refused(
            &[command, "--ring", "5000"],
            &["5000", "no power of two", "use 4096 or 8192"],
        );
        refused(&[command, "--ring", "131072"], &["131072", "from 1024 to 65536"]);
        refused(&[command, "--ring", "0"], &["from 1024 to 65536"]);
        refused(&[command, "--ring", "-4096"], &["`-4096` is no ring size"]);
    }
    refused(&["sweep", "--ring", "4096,big"], &["`big` is no ring size"]);
}

#[test]
fn quotas_that_can_not_be_held() {
    refused(
        &["run", "--quota", "-5"],
        &["a quota of -5 MiB/s", "above 0, such as 25"],
    );
    refused(&["run", "--quota", "NaN"], &["a quota of NaN MiB/s", "above 0"]);
    refused(&["run", "--quota", "0"], &["a quota of 0 MiB/s"]);
    refused(&["sweep", "--quota", "25,fast"], &["`fast` is no quota", "such as 25"]);
    refused(&["run", "--quota", "1+2"], &["values for 2 vCPUs", "`--vcpus 2`"]);
    refused(&["floor", "--quota", "25"], &["searches the quota itself"]);
    refused(&["floor", "--probes", "auto"], &["leave `--probes` out"]);
    refused(&["run", "--probes", "on"], &["`on` is no mode", "auto, off or require"]);
    refused(&["floor", "--lowest", "-1"], &["a quota of -1 MiB/s"]);
    refused(&["floor", "--within", "0"], &["a number above 0"]);
}

#[test]
fn names_that_are_not_known() {
    refused(
        &["run", "--guest", "sequental"],
        &["unknown guest `sequental`", "sequential, random"],
    );
    refused(&["run", "--guest", "hot-cold"], &["hot-cold:10/90"]);
    refused(&["run", "--limiter", "qemu"], &["no limiter `qemu`", "qemu-7.2"]);
    refused(&["rnu"], &["unrecognized subcommand 'rnu'", "--help"]);
    refused(&["run", "--rng", "4096"], &["--rng", "--ring"]);
}

#[test]
fn times_that_make_no_sense() {
    refused(
        &["run", "--period", "50ms"],
        &["a period of 50ms is out of range", "100ms to 60s"],
    );
    refused(&["run", "--period", "2m"], &["out of range"]);
    refused(&["run", "--period", "1"], &["`1` is not a period", "such as 1s"]);
    refused(&["run", "--duration", "0s"], &["leaves no time"]);
    refused(
        &["run", "--duration", "soon"],
        &["`soon` is not a duration", "such as 30s"],
    );
}

#[test]
fn scripts_that_can_not_be_followed() {
    refused(
        &["run", "--at", "10s throttle all"],
        &["is no change of a script", "10s set 500 all"],
    );
    refused(&["run", "--at", "ten set 500 all"], &["`ten`", "is no time"]);
    refused(
        &["run", "--at", "10s unplug 3"],
        &["names vCPU 3", "room for 1", "--vcpus"],
    );
    refused(
        &["run", "--at", "10s set 5 all", "--duration", "5s"],
        &["after the end", "--duration"],
    );
}

#[test]
fn settings_that_contradict_each_other() {
    refused(
        &["run", "--ring", "1024,4096"],
        &["`--ring` was given 2 values", "dirtyrig sweep"],
    );
    refused(&["run", "--vcpus", "0"], &["from 1 to 64"]);
    refused(&["run", "--vcpus", "2", "--plugged", "3"], &["`--plugged 3`"]);
    refused(
        &["run", "--limiter", "none", "--quota", "25"],
        &["`none` can't hold a quota"],
    );
    refused(&["run", "--guest", "replay"], &["guest `replay` needs"]);
    refused(
        &["sweep", "--resume", "somewhere", "--ring", "4096"],
        &["--resume", "cannot be used with"],
    );
}

#[test]
fn files_of_settings() {
    let dir = folder();
    let write = |text: &str| fs::write(dir.path().join("a.toml"), text).expect("a file");
    for command in ["run", "sweep"] {
        write("ring = 4096\nquotta = 25\n");
        refused_in(
            dir.path(),
            &[command, "a.toml"],
            &["a.toml", "line 2", "`quotta`", "did you mean `quota`?"],
        );
        write("ring = 5000\n");
        refused_in(dir.path(), &[command, "a.toml"], &["line 1", "use 4096 or 8192"]);
        write("ring = \n");
        refused_in(dir.path(), &[command, "a.toml"], &["a.toml", "line 1"]);
        refused_in(dir.path(), &[command, "b.toml"], &["can't read b.toml", "No such file"]);
    }
}

#[test]
fn results_are_never_overwritten() {
    let dir = folder();
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).expect("a folder");
    fs::write(taken.join("summary.csv"), "precious").expect("a file");
    for command in ["run", "sweep"] {
        refused_in(
            dir.path(),
            &[command, "--ring", "4096", "--out", "taken"],
            &["taken", "never overwritten", "--out"],
        );
    }
    assert_eq!(
        fs::read_to_string(taken.join("summary.csv")).expect("still there"),
        "precious"
    );
}

#[test]
fn what_is_no_sweep_can_not_be_continued() {
    let dir = folder();
    refused_in(dir.path(), &["sweep", "--resume", "."], &["is no recording"]);
    refused_in(
        dir.path(),
        &["sweep", "--resume", "nowhere"],
        &["nowhere", "is no recording"],
    );
}

#[test]
fn shares_that_can_not_be_had() {
    let matrix = ["sweep", "--ring", "1024,4096"];
    let with = |more: &[&'static str]| [&matrix[..], more].concat();
    refused(&with(&["--shard", "3"]), &["`3` is no share of a sweep", "such as 1/4"]);
    refused(&with(&["--shard", "0/2"]), &["share 0 of 2 does not exist"]);
    refused(&with(&["--shard", "1/2"]), &["needs `--seed N`", "the same plan"]);
    refused(
        &with(&["--shard", "3/3", "--seed", "1"]),
        &["share 3/3 of 2 cells is empty", "at most 2"],
    );
    refused(
        &["sweep", "--shard", "1/2", "--seed", "1"],
        &["main job depend on the machine", "--ring"],
    );
    refused(
        &["sweep", "--resume", "somewhere", "--shard", "1/2"],
        &["--shard", "cannot be used with"],
    );
}

#[test]
fn folders_that_can_not_be_merged() {
    refused(&["merge", "--out", "all"], &["<DIR>..."]);
    refused(&["merge", "a", "b"], &["--out <DIR>"]);
    let dir = folder();
    refused_in(
        dir.path(),
        &["merge", "nowhere", "--out", "all"],
        &["nowhere", "is no recording"],
    );
    assert!(!dir.path().join("all").exists());
}

/// What is done to a recording.
type Change<'a> = &'a dyn Fn(&Path);

/// A copy of the reference run, changed.
fn damaged(change: impl Fn(&Path)) -> tempfile::TempDir {
    let dir = folder();
    let reference = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../results/reference");
    for file in ["manifest.json", "samples.csv", "summary.csv", "stalls.hlog"] {
        fs::create_dir_all(dir.path().join("run")).expect("a folder");
        fs::copy(reference.join(file), dir.path().join("run").join(file)).expect("copied");
    }
    change(&dir.path().join("run"));
    dir
}

#[test]
fn damaged_recordings_are_neither_reported_nor_merged() {
    let edit = |path: PathBuf, from: &str, to: &str| {
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.contains(from));
        fs::write(path, text.replacen(from, to, 1)).expect("written");
    };
    let cases: [(Change<'_>, &[&str]); 4] = [
        (
            &|dir| {
                edit(
                    dir.join("manifest.json"),
                    "\"schema_version\": 1",
                    "\"schema_version\": 0",
                );
            },
            &["schema version 0, older than 1", "use dirtyrig 0.1.0"],
        ),
        (
            &|dir| {
                let text = fs::read_to_string(dir.join("samples.csv")).expect("readable");
                fs::write(dir.join("samples.csv"), &text[..text.len() / 2]).expect("cut");
            },
            &["samples.csv` is truncated: line", "copy the file again"],
        ),
        (
            &|dir| fs::remove_file(dir.join("stalls.hlog")).expect("removed"),
            &["stalls.hlog` is missing from the recording"],
        ),
        (
            &|dir| {
                edit(dir.join("summary.csv"), "guest_mib_s", "guest_mb_s");
            },
            &["`guest_mb_s` where `guest_mib_s` is expected", "units differ"],
        ),
    ];
    for (change, expected) in cases {
        let dir = damaged(change);
        refused_in(dir.path(), &["report", "run"], expected);
        refused_in(
            dir.path(),
            &["merge", "run", "run", "--out", "all"],
            &expected[..1]
                .iter()
                .filter(|words| !words.contains("stalls"))
                .copied()
                .collect::<Vec<_>>(),
        );
        assert!(!dir.path().join("all").exists() && !dir.path().join("run/report.html").exists());
    }
}

#[test]
fn a_report_is_made_and_overwrites_only_itself() {
    let dir = damaged(|_| ());
    for _ in 0..2 {
        let output = dirtyrig(dir.path(), &["report", "run"]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "run/report.html\n");
    }
    for (format, begins) in [
        ("md", "<!-- dirtyrig-report 1 -->"),
        ("csv", "recording,cell,"),
        ("json", "{\n  \"schema\""),
    ] {
        let output = dirtyrig(dir.path(), &["report", "run", "--format", format]);
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(begins), "{format}");
    }
    fs::write(dir.path().join("mine.html"), "precious").expect("a file");
    refused_in(
        dir.path(),
        &["report", "run", "--out", "mine.html"],
        &["mine.html", "not overwritten", "--out"],
    );
    refused(&["report"], &["<DIR>..."]);
}

#[test]
fn a_reader_who_leaves_is_no_reason_to_panic() {
    for arguments in [&["--help"][..], &["run", "--help"], &["doctor"]] {
        let dir = folder();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// The help texts are part of the interface: a change of them is to be seen. `DIRTYRIG_BLESS=1` writes them anew.
#[test]
fn help_is_what_it_was() {
    let dir = folder();
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help-run", &["run", "--help"]),
        ("help-sweep", &["sweep", "--help"]),
        ("help-floor", &["floor", "--help"]),
        ("help-observe", &["observe", "--help"]),
        ("help-serve", &["serve", "--help"]),
    ] {
        let output = dirtyrig(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).expect("help is text");
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
        if std::env::var_os("DIRTYRIG_BLESS").is_some() {
            fs::create_dir_all(golden.parent().expect("it has a folder")).expect("the folder");
            fs::write(&golden, &said).expect("the golden file");
        }
        let expected = fs::read_to_string(&golden).expect("the golden file; DIRTYRIG_BLESS=1 writes it");
        assert_eq!(
            said, expected,
            "{name}: DIRTYRIG_BLESS=1 writes it anew if the change is wanted"
        );
        assert!(
            said.lines().all(|line| line.len() <= 100),
            "{name} has a line that is too wide for a terminal"
        );
    }
}

#[test]
fn a_session_that_nobody_could_reach_or_that_is_not_the_rigs() {
    refused(&["serve"], &["--socket", "--console"]);
    refused(
        &["serve", "--console", "--vmm", "qemu"],
        &["`--vmm qemu` can't be served", "-qmp"],
    );
}
