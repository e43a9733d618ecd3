//! `cargo xtask kernels`: the probes on kernels whose `kvm_exit` and `kvm_entry` fire, whatever this host is.
//!
//! Debian's stable kernel and the one of its backports boot under QEMU's software emulation, and `kernel_check` runs in
//! each as a KVM host: it compares what the probes see with tracefs's own record.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

const SUITES: [&str; 2] = ["stable", "backports"];

/// The end of a run that went well.
const PASSED: &str = "exit status 0";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this kernel: stable, or backports
    #[arg(long, value_parser = SUITES)]
    only: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(missing) = missing() {
        let required = env::var("DIRTYRIG_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word.trim() == "qemu"));
        ensure!(
            !required,
            "DIRTYRIG_REQUIRE names `qemu`, and this machine has no {missing}"
        );
        println!("ignored: no {missing} on the path (`apt-get install qemu-system-x86`)");
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the root folder")?;
    let program = build(root)?;
    let mut failed = Vec::new();
    for suite in SUITES {
        if arguments.only.as_deref().is_some_and(|only| only != suite) {
            continue;
        }
        let output = Command::new("sh")
            .arg(root.join("xtask/kernels.sh"))
            .arg(root.join("target/kernels"))
            .arg(suite)
            .arg(&program)
            .stderr(Stdio::inherit())
            .output()
            .context("starting xtask/kernels.sh")?;
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        if !(output.status.success() && said.lines().any(|line| line == PASSED)) {
            failed.push(suite);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the check failed on the kernel of: {}", failed.join(", "))
}

/// What this needs and the machine lacks.
fn missing() -> Option<&'static str> {
    let found = |program: &str| {
        env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
    };
    ["qemu-system-x86_64", "apt-get", "dpkg"]
        .into_iter()
        .find(|program| !found(program))
}

/// Builds the check as a static program: the emulated machine has no libraries.
fn build(root: &Path) -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target = root.join("target/kernels/build");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--locked",
            "-p",
            "dirtyrig-probes",
            "--example",
            "kernel_check",
        ])
        .args(["--target", TARGET])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "building kernel_check failed");
    Ok(target.join(TARGET).join("release/examples/kernel_check"))
}
