//! The command on a QEMU that runs already: its exit code, its words, and what is left when it is ended or killed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dirtyrig_rig::{
    migrate::{monitor::Monitor, pair::Pair},
    qemu::binary::Binary,
    recording::migrations::{read_migrations, read_passes},
};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{LINK_MIB_S, promised};

/// A guest at the source, and the command that migrates it.
struct Run {
    pair: Pair,
    before: (Value, Value),
    child: Child,
    folder: tempfile::TempDir,
}

impl Run {
    fn start(binary: &Binary) -> Result<Self, Failed> {
        let setup = promised(1.6)?;
        let mut pair = Pair::start(binary, &setup.guest)?;
        let before = Monitor::connect(&pair.source.socket())?.settings()?;
        let folder = tempfile::tempdir()?;
        let child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
            .args(["migrate", "--json", "--downtime", "400ms"])
            .arg("--within")
            .arg(format!("{}ms", setup.promise.within.as_millis()))
            .arg("--bandwidth")
            .arg(format!("{LINK_MIB_S}MiB/s"))
            .arg("--qmp")
            .arg(pair.source.socket())
            .arg("--to")
            .arg(format!("tcp:127.0.0.1:{}", pair.port()?))
            .arg("--out")
            .arg(folder.path().join("recording"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            pair,
            before,
            child,
            folder,
        })
    }

    /// Waits until the vCPU's thread is held.
    fn wait_until_held(&mut self) -> Result<(), Failed> {
        let begun = Instant::now();
        while !self.is_held()? {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is never limited");
            assert!(self.child.try_wait()?.is_none(), "it has ended");
            thread::sleep(Duration::from_millis(5));
        }
        // Until its pages are logged and it is stopped again and again.
        thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn is_held(&self) -> Result<bool, Failed> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pair.source.pid()))?;
        let is_traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status
                .lines()
                .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        Ok(tasks.flatten().any(is_traced))
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    fn guest_runs(&self) {
        let (begun, before) = (Instant::now(), self.pair.source.truth(0).written);
        while self.pair.source.truth(0).written < before + 2_000 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the guest doesn't run");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) fn a_running_qemu_is_migrated(binary: &Binary) -> Result<(), Failed> {
    let Run {
        pair,
        before,
        child,
        folder,
    } = Run::start(binary)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let rows: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {said}"))?;
    assert_eq!(output.status.code(), Some(0), "{said} {rows}");
    assert!(
        said.contains("plan: all vCPUs together") && said.contains("the promise was kept"),
        "{said}"
    );
    assert_eq!(
        (rows[0]["kept"].as_bool(), rows[0]["ended"].as_str()),
        (Some(true), Some("completed"))
    );
    let recording = folder.path().join("recording");
    assert_eq!(read_migrations(&recording)?.len(), 1);
    assert!(read_passes(&recording)?.iter().any(|pass| pass.quota_mib_s.is_some()));
    assert_eq!(Monitor::connect(&pair.source.socket())?.settings()?, before);
    Ok(())
}

pub(crate) fn a_migration_of_somebody_elses_is_followed(binary: &Binary) -> Result<(), Failed> {
    // The limiter of a follower comes only once there is a migration, which takes a slow host a second: time to make up for it.
    let setup = promised(3.0)?;
    let mut pair = Pair::start(binary, &setup.guest)?;
    let mut theirs = Monitor::connect(&pair.source.socket())?;
    let uri = pair.connect(&mut theirs, setup.link)?;
    let parameters = |monitor: &mut Monitor| monitor.command("query-migrate-parameters", &Value::Null);
    theirs.command("migrate-set-parameters", &json!({"max-bandwidth": 0}))?;
    let before = parameters(&mut theirs)?;
    let folder = tempfile::tempdir()?;
    let mut follower = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["migrate", "--follow", "--json", "--downtime", "400ms"])
        .arg("--within")
        .arg(format!("{}ms", setup.promise.within.as_millis()))
        .arg("--bandwidth")
        .arg(format!("{LINK_MIB_S}MiB/s"))
        .arg("--qmp")
        .arg(pair.source.second_socket())
        .arg("--out")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stderr.take().ok_or("it is piped")?).lines();
    assert_eq!(
        lines.next().ok_or("it says that it waits")??,
        "waiting for a migration to start"
    );
    theirs.start(&uri)?;
    let output = follower.wait_with_output()?;
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(output.status.code(), Some(0), "{said:?}");
    let rows: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (rows[0]["kept"].as_bool(), rows[0]["ended"].as_str()),
        (Some(true), Some("completed"))
    );
    assert!(pair.arrived(Duration::from_secs(5))?);
    assert_eq!(pair.differences()?, 0);
    assert_eq!(parameters(&mut theirs)?, before);
    Ok(())
}

pub(crate) fn interrupted_it_leaves_the_guest_free(binary: &Binary) -> Result<(), Failed> {
    let mut run = Run::start(binary)?;
    run.wait_until_held()?;
    run.signal(Signal::SIGINT)?;
    let status = run.child.wait()?;
    assert_eq!(status.code(), Some(130));
    assert!(!run.is_held()?);
    run.guest_runs();
    assert_eq!(Monitor::connect(&run.pair.source.socket())?.settings()?, run.before);
    Ok(())
}

pub(crate) fn killed_it_leaves_the_guest_free(binary: &Binary) -> Result<(), Failed> {
    let mut run = Run::start(binary)?;
    run.wait_until_held()?;
    run.signal(Signal::SIGKILL)?;
    run.child.wait()?;
    assert!(
        !run.is_held()?,
        "the kernel lets go of what a tracer held when it is reaped"
    );
    run.guest_runs();
    // The migration is QEMU's, and goes on without a limit until somebody cancels it.
    let mut monitor = Monitor::connect(&run.pair.source.socket())?;
    monitor.cancel()?;
    let begun = Instant::now();
    while monitor.progress()?.is_under_way() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it can't be cancelled");
        thread::sleep(Duration::from_millis(10));
    }
    run.guest_runs();
    Ok(())
}

pub(crate) fn what_can_not_be_is_told(binary: &Binary) -> Result<(), Failed> {
    let setup = promised(1.6)?;
    let pair = Pair::start(binary, &setup.guest)?;
    let folder = tempfile::tempdir()?;
    let run = |within: &str| {
        Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
            .args([
                "migrate",
                "--to",
                "tcp:127.0.0.1:1",
                "--downtime",
                "400ms",
                "--within",
                within,
            ])
            .args(["--bandwidth", "48MiB/s", "--qmp"])
            .arg(pair.source.socket())
            .arg("--out")
            .arg(folder.path())
            .output()
    };
    let refused = run("1s")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("can't be promised: it takes a total time of at least"),
        "{said}"
    );
    // Nobody listens there: QEMU says so, and the promise is broken.
    let failed = run("10s")?;
    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(
        said.contains("it failed:") && said.contains("the guest is where it was"),
        "{said}"
    );
    Ok(())
}
