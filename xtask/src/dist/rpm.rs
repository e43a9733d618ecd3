//! The .rpm.

use anyhow::Result;
use rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder};

use super::release::{DESCRIPTION, LICENCE, Release, SUMMARY};

/// The package's name and bytes.
pub(super) fn pack(release: &Release) -> Result<(String, Vec<u8>)> {
    let mut builder = PackageBuilder::new("dirtyrig", release.version, LICENCE, "x86_64", SUMMARY);
    builder
        .using_config(
            BuildConfig::default()
                .source_date(release.time)
                .compression(CompressionWithLevel::Gzip(9)),
        )
        .release("1")
        .description(DESCRIPTION)
        // Else the name of this machine.
        .build_host("dirtyrig");
    for item in &release.items {
        // Where RPM's zsh looks, rather than Debian's.
        let installed = item.installed.replace("zsh/vendor-completions", "zsh/site-functions");
        let permissions = item.mode.try_into()?;
        let options = FileOptions::new(format!("/{installed}")).permissions(permissions);
        builder.with_file_contents(item.bytes.clone(), options)?;
    }
    let mut bytes = Vec::new();
    builder.build()?.write(&mut bytes)?;
    Ok((format!("dirtyrig-{}-1.x86_64.rpm", release.version), bytes))
}
