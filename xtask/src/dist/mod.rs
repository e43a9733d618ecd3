//! `cargo xtask dist`: what users install. One static binary, its man pages, completions and licences, as a tarball, a
//! .deb and an .rpm in `target/dist`. The same commit, built by the same toolchain, gives the same bytes.

mod build;
mod deb;
mod licences;
mod release;
mod rpm;
mod said;
mod tarball;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    release::{Item, Release},
    said::said,
};

/// What is promised of the binary's size.
const MOST_BYTES: u64 = 15_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder for the packages
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the root folder")?;
    let built = build::binaries(root)?;
    let size = fs::metadata(&built.dirtyrig)?.len();
    ensure!(
        size < MOST_BYTES,
        "{} has {size} bytes, at least the {MOST_BYTES} that it is to stay below",
        built.dirtyrig.display()
    );
    let release = Release {
        version: env!("CARGO_PKG_VERSION"),
        time: said("git", &["log", "-1", "--format=%ct"], root)?.parse()?,
        items: items(root, &built)?,
    };
    fs::create_dir_all(&arguments.out).with_context(|| format!("making {}", arguments.out.display()))?;
    for (name, bytes) in [tarball::pack(&release)?, deb::pack(&release)?, rpm::pack(&release)?] {
        let to = arguments.out.join(name);
        fs::write(&to, &bytes).with_context(|| format!("writing {}", to.display()))?;
        println!("{} ({} bytes)", to.display(), bytes.len());
    }
    Ok(())
}

/// Everything to pack, in the order of the tarball's paths.
fn items(root: &Path, built: &build::Built) -> Result<Vec<Item>> {
    let mut items = vec![Item {
        in_tarball: "dirtyrig".into(),
        installed: "usr/bin/dirtyrig".into(),
        mode: 0o755,
        bytes: fs::read(&built.dirtyrig)?,
    }];
    let mut add = |in_tarball: &str, installed: String, bytes: Vec<u8>| {
        items.push(Item {
            in_tarball: in_tarball.into(),
            installed,
            mode: 0o644,
            bytes,
        });
    };
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let bytes = fs::read(root.join(name)).with_context(|| format!("reading {name}"))?;
        add(name, format!("usr/share/doc/dirtyrig/{name}"), bytes);
    }
    for (name, folder) in [
        ("dirtyrig-observe.service", "usr/lib/systemd/system"),
        ("dirtyrig-limit@.service", "usr/lib/systemd/system"),
        ("alerts.yml", "usr/share/doc/dirtyrig"),
        ("grafana.json", "usr/share/doc/dirtyrig"),
    ] {
        let bytes = fs::read(root.join("packaging").join(name)).with_context(|| format!("reading packaging/{name}"))?;
        add(name, format!("{folder}/{name}"), bytes);
    }
    let licences = licences::text(root)?.into_bytes();
    add(
        "LICENSES-LINKED",
        "usr/share/doc/dirtyrig/LICENSES-LINKED".into(),
        licences,
    );
    for (shell, file, folder) in [
        ("bash", "dirtyrig", "usr/share/bash-completion/completions"),
        ("zsh", "_dirtyrig", "usr/share/zsh/vendor-completions"),
        ("fish", "dirtyrig.fish", "usr/share/fish/vendor_completions.d"),
    ] {
        add(
            &format!("completions/{shell}/{file}"),
            format!("{folder}/{file}"),
            built.completion(shell)?,
        );
    }
    for (name, bytes) in built.man_pages()? {
        let zipped = tarball::zipped(&bytes)?;
        add(
            &format!("man/{name}.gz"),
            format!("usr/share/man/man1/{name}.gz"),
            zipped,
        );
    }
    items.sort_by(|a, b| a.in_tarball.cmp(&b.in_tarball));
    Ok(items)
}
