//! Tells the build which revision of the source and which compiler it was made with.

use std::{env, process::Command};

/// What the build depends on beside this crate: a change of any of it may change the revision's `-dirty` mark.
const SOURCES: [&str; 6] = [
    "src",
    "../limiter",
    "../guests",
    "../probes",
    "../Cargo.lock",
    "../Cargo.toml",
];

fn main() {
    for path in SOURCES {
        println!("cargo::rerun-if-changed={path}");
    }
    // The log of HEAD changes with each commit and checkout, in a worktree too.
    if let Some(log) = said("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let revision = said(
        "git",
        &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    );
    set("DIRTYRIG_GIT_REVISION", revision.as_deref());
    let rustc = env::var("RUSTC").expect("cargo names the compiler");
    set("DIRTYRIG_RUSTC", said(&rustc, &["--version"]).as_deref());
}

fn set(name: &str, value: Option<&str>) {
    println!("cargo::rustc-env={name}={}", value.unwrap_or("unknown"));
}

/// The first line that a command prints; `None` where it can't be run or fails, as `git` does in a source archive.
fn said(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
