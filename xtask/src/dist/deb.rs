//! The .deb: an `ar` archive of a version, a description and the files (deb(5)).

use std::collections::BTreeSet;

use anyhow::Result;

use super::{
    release::{DESCRIPTION, Release, SUMMARY},
    tarball,
};

/// The package's name and bytes.
pub(super) fn pack(release: &Release) -> Result<(String, Vec<u8>)> {
    let kib: usize = release.items.iter().map(|item| item.bytes.len().div_ceil(1024)).sum();
    let control = format!(
        "Package: dirtyrig\nVersion: {}\nArchitecture: amd64\nMaintainer: the dirtyrig developers\n\
         Installed-Size: {kib}\nSection: admin\nPriority: optional\nDescription: {SUMMARY}\n {DESCRIPTION}\n",
        release.version
    );
    let control = [("./control".to_owned(), 0o644, control.as_bytes())];
    let files = release
        .items
        .iter()
        .map(|item| (format!("./{}", item.installed), item.mode, item.bytes.as_slice()));
    let folders = folders(release.items.iter().map(|item| item.installed.as_str()));
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        (
            "control.tar.gz",
            tarball::archive(control, &["./".into()], release.time)?,
        ),
        ("data.tar.gz", tarball::archive(files, &folders, release.time)?),
    ];
    let mut package = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
        header.set_mtime(release.time.into());
        header.set_mode(0o100_644);
        package.append(&header, bytes.as_slice())?;
    }
    Ok((format!("dirtyrig_{}_amd64.deb", release.version), package.into_inner()?))
}

/// Every folder above the files, parents first, as dpkg wants them.
fn folders<'a>(files: impl Iterator<Item = &'a str>) -> Vec<String> {
    let above = files.flat_map(|file| file.match_indices('/').map(|(end, _)| &file[..=end]));
    let all: BTreeSet<&str> = above.collect();
    std::iter::once("./".to_owned())
        .chain(all.into_iter().map(|folder| format!("./{folder}")))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let files = ["usr/share/man/a", "usr/bin/b", "usr/bin/c"];
        assert_eq!(
            super::folders(files.into_iter()),
            ["./", "./usr/", "./usr/bin/", "./usr/share/", "./usr/share/man/"]
        );
    }
}
