//! Children: a guest of the rig's, and an observer.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use libtest_mimic::Failed;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub(crate) const DIRTYRIG: &str = env!("CARGO_BIN_EXE_dirtyrig");

/// Waits until `done`; generous, and only there so that what never happens fails the test instead of hanging it.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool, Failed>) -> Result<(), Failed> {
    for _ in 0..6000 {
        if done()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{what}: not within a minute").into())
}

/// `dirtyrig run`, unlimited, until it is dropped.
pub(crate) struct Guest {
    child: Child,
    _dir: TempDir,
}

impl Guest {
    /// Starts one; returns once its samples come, so that its vCPUs run.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let out = dir.path().join("run");
        let child = Command::new(DIRTYRIG)
            .args([
                "run",
                "--limiter",
                "none",
                "--duration",
                "1h",
                "--probes",
                "off",
                "--out",
            ])
            .arg(&out)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut guest = Self { child, _dir: dir };
        wait_until("the guest runs", || {
            if let Some(status) = guest.child.try_wait()? {
                return Err(format!("the guest ended: {status}").into());
            }
            let rows = std::fs::read_to_string(out.join("samples.csv")).unwrap_or_default();
            Ok(rows.lines().count() > 1)
        })?;
        Ok(guest)
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn end(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `dirtyrig observe` to its end.
pub(crate) fn observe(arguments: &[&str]) -> Result<Output, Failed> {
    Ok(Command::new(DIRTYRIG)
        .arg("observe")
        .args(arguments)
        .stdin(Stdio::null())
        .output()?)
}

/// What it printed, and what it noted.
pub(crate) fn spoken(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The values of a column of CSV.
pub(crate) fn column(text: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().expect("a header").clone();
    let index = names.iter().position(|found| found == name).expect("the column");
    reader
        .records()
        .map(|row| row.expect("as many values as columns")[index].to_owned())
        .collect()
}

/// `dirtyrig observe` as it runs.
pub(crate) struct Observed {
    child: Child,
    /// None where it goes to its terminal.
    stderr: Option<BufReader<ChildStderr>>,
    said: String,
}

impl Observed {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failed> {
        let mut child = Command::new(DIRTYRIG)
            .arg("observe")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        Ok(Self {
            child,
            stderr: Some(stderr),
            said: String::new(),
        })
    }

    /// With a terminal of its own, whose other end is returned.
    pub(crate) fn on_terminal(arguments: &[&str]) -> Result<(Self, File), Failed> {
        let size = Winsize {
            ws_row: 30,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = openpty(&size, None)?;
        // Else the child would hold the other end open itself.
        fcntl(&ends.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let child = Command::new(DIRTYRIG)
            .arg("observe")
            .args(arguments)
            .stdin(ends.slave.try_clone()?)
            .stdout(ends.slave.try_clone()?)
            .stderr(ends.slave)
            .spawn()?;
        let observed = Self {
            child,
            stderr: None,
            said: String::new(),
        };
        Ok((observed, File::from(ends.master)))
    }

    /// The next line of its notes that has `words`.
    pub(crate) fn wait_for(&mut self, words: &str) -> Result<String, Failed> {
        loop {
            let mut line = String::new();
            let stderr = self.stderr.as_mut().ok_or("its notes go to its terminal")?;
            if stderr.read_line(&mut line)? == 0 {
                return Err(format!("it ended without saying `{words}`, but: {}", self.said).into());
            }
            self.said.push_str(&line);
            if line.contains(words) {
                return Ok(line);
            }
        }
    }

    pub(crate) fn close_stdout(&mut self) {
        drop(self.child.stdout.take());
    }

    /// Takes what it prints until it ends.
    pub(crate) fn reader(&mut self) -> thread::JoinHandle<String> {
        let mut stdout = self.child.stdout.take().expect("it was not taken yet");
        thread::spawn(move || {
            let mut text = String::new();
            stdout
                .read_to_string(&mut text)
                .map_or_else(|error| error.to_string(), |_| text)
        })
    }

    /// Sends it a signal, if any, and waits for its end.
    pub(crate) fn end(mut self, signal: Option<Signal>) -> Result<ExitStatus, Failed> {
        if let Some(signal) = signal {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        }
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        if let Some(stderr) = &mut self.stderr {
            stderr.read_to_string(&mut self.said)?;
        }
        assert!(
            !self.said.contains("panicked") && !self.said.contains("error:"),
            "{}",
            self.said
        );
        status.ok_or_else(|| "it has ended".into())
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
