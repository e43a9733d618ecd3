//! `dirtyrig floor`: its tries are a recording, cut short too.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use dirtyrig_rig::recording::{Recording, State};
use dirtyrig_testkit::{Need, run, trial};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn main() {
    run(vec![trial(
        "a search that is cut short keeps what it tried",
        &[Need::Kvm],
        cut_short,
    )]);
}

/// A child that doesn't outlive its trial.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cut_short() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("floor");
    let child = Command::new(env!("CARGO_BIN_EXE_dirtyrig"))
        .args(["floor", "--limiter", "budget", "--ring", "1024", "--memory", "64"])
        // So many tries of each end that it does not end by itself.
        .args(["--lowest", "1", "--repetitions", "1000", "--duration", "500ms", "--out"])
        .arg(&out)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut search = Killed(child);
    let rows = || fs::read_to_string(out.join("summary.csv")).map_or(0, |text| text.lines().count().saturating_sub(1));
    while rows() < 2 {
        if let Some(status) = search.0.try_wait()? {
            return Err(format!("it ended by itself: {status}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(search.0.id().cast_signed()), Signal::SIGINT)?;
    assert_eq!(search.0.wait()?.code(), Some(130));
    let recording = Recording::open(&out)?;
    assert!(matches!(recording.manifest.state, State::Interrupted | State::Complete));
    let finished = recording.finished();
    assert!(finished.len() >= 2, "{finished:?}");
    for row in &recording.summaries {
        assert!(row.quota_mib_s >= Some(1.0) && row.guest_mib_s.is_some(), "{row:?}");
    }
    Ok(())
}
