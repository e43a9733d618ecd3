//! `cargo xtask ebpf`: from `probes/ebpf` to `probes/prebuilt`, and the proof that they agree.
//!
//! The objects are committed, so that a user's build needs stable Rust alone; they do not depend on where they are
//! built, so `--check` compares bytes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// The objects, each named as its binary.
const OBJECTS: [&str; 2] = ["observer", "quota"];

/// The compiler with a `core` for BPF, where Debian puts it; `EBPF_RUSTC` names another.
const RUSTC: &str = "/usr/bin/rustc";

/// What made the committed objects, beside them.
const TOOLCHAIN: &str = "TOOLCHAIN";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing: fail if the committed objects are not, byte for byte, what their source builds to
    #[arg(long)]
    check: bool,
    /// First install the toolchain (Debian or Ubuntu, as root): rustc-web with its BPF `core`, and bpf-linker
    #[arg(long)]
    install: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the root folder")?;
    let prebuilt = root.join("probes/prebuilt");
    if arguments.install {
        install(root)?;
    }
    let toolchain = toolchain()?;
    let built = build(root)?;
    if arguments.check {
        return check(&prebuilt, &built, &toolchain);
    }
    for name in OBJECTS {
        let to = object(&prebuilt, name);
        fs::copy(built.join(name), &to).with_context(|| format!("writing {}", to.display()))?;
        println!("wrote {}", to.display());
    }
    let to = prebuilt.join(TOOLCHAIN);
    fs::write(&to, toolchain).with_context(|| format!("writing {}", to.display()))
}

/// Builds every object; returns the folder in which they are.
fn build(root: &Path) -> Result<PathBuf> {
    let source = root.join("probes/ebpf");
    let target = root.join("target/ebpf");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--locked", "--target", "bpfel-unknown-none"])
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC", rustc())
        // aya-ebpf and the programs use features that only an unstable compiler, or this variable, opens.
        .env("RUSTC_BOOTSTRAP", "1")
        // Any flag of the caller's could change the bytes.
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    let status = cargo.status().context("starting cargo")?;
    ensure!(
        status.success(),
        "building the eBPF programs failed: `cargo xtask ebpf --install` installs their toolchain"
    );
    Ok(target.join("bpfel-unknown-none/release"))
}

fn check(prebuilt: &Path, built: &Path, toolchain: &str) -> Result<()> {
    let mut differing = Vec::new();
    for name in OBJECTS {
        let committed = object(prebuilt, name);
        let committed = fs::read(&committed).with_context(|| format!("reading {}", committed.display()))?;
        let built = fs::read(built.join(name)).with_context(|| format!("reading the object just built, {name}"))?;
        if committed == built {
            println!("{name}: {} bytes, identical", built.len());
        } else {
            differing.push(format!(
                "{name} ({} bytes committed, {} built)",
                committed.len(),
                built.len()
            ));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let made_by = fs::read_to_string(prebuilt.join(TOOLCHAIN)).context("reading what made the committed objects")?;
    let cause = if made_by == toolchain {
        "the source has changed since: run `cargo xtask ebpf` and commit probes/prebuilt".to_owned()
    } else {
        format!(
            "committed from\n{made_by}built with\n{toolchain}rebuild with the former, or commit what the latter builds"
        )
    };
    bail!("not what their source builds to: {}; {cause}", differing.join(", "))
}

fn object(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.bpf.o"))
}

fn rustc() -> String {
    env::var("EBPF_RUSTC").unwrap_or_else(|_| RUSTC.to_owned())
}

/// The versions of whatever has a say in the bytes, a line each.
fn toolchain() -> Result<String> {
    let compiler = output(&rustc(), &["--version", "--verbose"])?;
    let of_compiler = |key: &str| {
        compiler
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or(key)
            .to_owned()
    };
    let linker = output("bpf-linker", &["--version"])?;
    Ok([of_compiler("release"), of_compiler("LLVM"), linker.trim().to_owned()]
        .map(|line| line + "\n")
        .concat())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let hint = "`cargo xtask ebpf --install` installs the toolchain (Debian or Ubuntu, as root)";
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("starting {program}: {hint}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        output.status
    );
    String::from_utf8(output.stdout).with_context(|| format!("what {program} printed"))
}

fn install(root: &Path) -> Result<()> {
    let script = root.join("xtask/ebpf-toolchain.sh");
    let status = Command::new("sh")
        .arg(&script)
        .status()
        .with_context(|| format!("starting {}", script.display()))?;
    ensure!(status.success(), "{}: {status}", script.display());
    Ok(())
}
