//! Finds a QEMU and asks it what it is.

use std::{
    env,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    error::QemuError,
    version::{FIRST_WITH_LIMIT, Version},
};

/// The name under which QEMU is looked for along `PATH`.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A firmware of a few instructions: it takes milliseconds where the usual one takes a second, and none of it is wanted.
const FIRMWARE: &str = "qboot.rom";

/// How long it may take to say what it is; it takes some 20 ms.
const ANSWER: Duration = Duration::from_secs(20);

/// A QEMU that has a dirty limit and KVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// What it says that it is.
    pub version: Version,
    /// Whether it comes with the small firmware.
    pub small_firmware: bool,
}

impl Binary {
    /// The one at `given`, a path or a name along `PATH`; without it, [`PROGRAM`].
    pub fn find(given: Option<&Path>) -> Result<Self, QemuError> {
        let path = locate(given.unwrap_or_else(|| Path::new(PROGRAM)))?;
        let said = ask(&path, "--version", &["--version"])?;
        let version = version_in(&said).ok_or_else(|| QemuError::NotQemu {
            path: path.clone(),
            said: said.lines().next().unwrap_or_default().chars().take(80).collect(),
        })?;
        if version < FIRST_WITH_LIMIT {
            return Err(QemuError::TooOld { path, version });
        }
        let accelerators = ask(&path, "-accel help", &["-accel", "help"])?;
        if !accelerators.lines().any(|line| line.trim() == "kvm") {
            return Err(QemuError::NoKvm { path });
        }
        let folders = ask(&path, "-L help", &["-L", "help"])?;
        let small_firmware = folders
            .lines()
            .any(|folder| Path::new(folder.trim()).join(FIRMWARE).is_file());
        Ok(Self {
            path,
            version,
            small_firmware,
        })
    }

    /// The arguments that choose the firmware.
    pub(super) fn firmware(&self) -> &'static [&'static str] {
        if self.small_firmware { &["-bios", FIRMWARE] } else { &[] }
    }
}

/// A path as it is; a bare name along `PATH`, as a shell would.
fn locate(given: &Path) -> Result<PathBuf, QemuError> {
    let not_found = || QemuError::NotFound { path: given.to_owned() };
    if given.components().count() > 1 || given.is_absolute() {
        return given.exists().then(|| given.to_owned()).ok_or_else(not_found);
    }
    env::var_os("PATH")
        .and_then(|path| {
            env::split_paths(&path)
                .map(|folder| folder.join(given))
                .find(|path| path.is_file())
        })
        .ok_or_else(not_found)
}

/// What `path` prints when it is called with `arguments`.
fn ask(path: &Path, question: &'static str, arguments: &[&str]) -> Result<String, QemuError> {
    let io = |source: std::io::Error| QemuError::NotExecutable {
        path: path.to_owned(),
        source,
    };
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| match source.kind() {
            ErrorKind::NotFound => QemuError::NotFound { path: path.to_owned() },
            _ => io(source),
        })?;
    let begun = Instant::now();
    // What it says fits a pipe, so it can end before it is read.
    while child.try_wait().map_err(io)?.is_none() {
        if begun.elapsed() > ANSWER {
            // It fails only if the child has ended after all.
            let _ = child.kill();
            child.wait().map_err(io)?;
            return Err(QemuError::NoAnswer {
                path: path.to_owned(),
                question,
                waited: ANSWER,
            });
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(io)?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The version in `QEMU emulator version 10.0.2 (Debian ...)`.
fn version_in(said: &str) -> Option<Version> {
    let rest = said.strip_prefix("QEMU emulator version ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A program that answers every question with `script`.
    fn program(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("qemu");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        (dir, path)
    }

    fn refused(script: &str) -> String {
        let (_dir, path) = program(script);
        Binary::find(Some(&path)).expect_err(script).to_string()
    }

    #[test]
    fn the_version_is_the_third_word_or_so() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022\n";
        assert_eq!(version_in(debian), Some(Version::new(7, 2, 22)));
        assert_eq!(
            version_in("QEMU emulator version 10.0.2\n"),
            Some(Version::new(10, 0, 2))
        );
        assert_eq!(version_in("cat (GNU coreutils) 9.1\n"), None);
    }

    #[test]
    fn what_is_not_there_or_no_program_is_told() {
        let error = Binary::find(Some(Path::new("/nowhere/qemu"))).expect_err("nothing there");
        assert!(matches!(error, QemuError::NotFound { .. }), "{error}");
        let error = Binary::find(Some(Path::new("qemu-of-nobody"))).expect_err("not along PATH");
        assert!(error.to_string().contains("apt-get install"), "{error}");
        let error = Binary::find(Some(Path::new("/etc/passwd"))).expect_err("no program");
        assert!(matches!(error, QemuError::NotExecutable { .. }), "{error}");
    }

    #[test]
    fn another_program_is_told_by_what_it_says() {
        assert!(refused("echo cat 9.1").contains("says `cat 9.1`"));
        assert!(refused("echo 'QEMU emulator version 6.2.0'").contains("no dirty limit: it came with 7.1"));
        let emulator = "case $1 in --version) echo 'QEMU emulator version 9.0.0';; *) echo tcg;; esac";
        assert!(refused(emulator).contains("without KVM"));
    }

    #[test]
    fn a_qemu_without_the_small_firmware_gets_none() {
        let (_dir, path) =
            program("case $1 in --version) echo 'QEMU emulator version 9.0.0';; -accel) echo kvm;; esac");
        let binary = Binary::find(Some(&path)).expect("it has all that is needed");
        assert_eq!(binary.version, Version::new(9, 0, 0));
        assert!(binary.firmware().is_empty());
    }
}
