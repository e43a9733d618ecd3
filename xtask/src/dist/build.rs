//! The binaries that are packed, or write what is packed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::said::said;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What was built.
pub(super) struct Built {
    pub(super) dirtyrig: PathBuf,
    man: PathBuf,
}

/// Builds them, static: they run where there is no libc, or an older one.
pub(super) fn binaries(root: &Path) -> Result<Built> {
    let folder = root.join("target/static");
    // The paths of this machine are no part of the program.
    let sysroot = said("rustc", &["--print", "sysroot"], root)?;
    let home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=dirtyrig", root.display()),
        format!("--remap-path-prefix={}=cargo", home.display()),
        format!("--remap-path-prefix={sysroot}=rust"),
    ];
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(["-p", "dirtyrig-rig", "--features", "man"])
        .args(["--bin", "dirtyrig", "--bin", "dirtyrig-man"])
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "building the static binary failed");
    let folder = folder.join(TARGET).join("release");
    Ok(Built {
        dirtyrig: folder.join("dirtyrig"),
        man: folder.join("dirtyrig-man"),
    })
}

impl Built {
    /// The script by which a shell asks the binary how to complete a command line.
    pub(super) fn completion(&self, shell: &str) -> Result<Vec<u8>> {
        let output = Command::new(&self.dirtyrig).env("COMPLETE", shell).output()?;
        ensure!(
            output.status.success() && !output.stdout.is_empty(),
            "COMPLETE={shell} dirtyrig: {}",
            output.status
        );
        Ok(output.stdout)
    }

    /// The man pages by name, sorted.
    pub(super) fn man_pages(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = self.man.with_extension("pages");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let status = Command::new(&self.man).arg(&folder).status()?;
        ensure!(status.success(), "dirtyrig-man: {status}");
        let mut pages = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a page's name in UTF-8")?;
            pages.push((name, fs::read(entry.path())?));
        }
        pages.sort();
        Ok(pages)
    }
}
