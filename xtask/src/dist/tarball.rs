//! The tarball, and the archives in a .deb, which are tarballs too.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};

use super::release::Release;

/// The tarball's name and bytes: one folder, named as the tarball.
pub(super) fn pack(release: &Release) -> Result<(String, Vec<u8>)> {
    let name = format!("dirtyrig-{}-x86_64-linux", release.version);
    let files = release
        .items
        .iter()
        .map(|item| (format!("{name}/{}", item.in_tarball), item.mode, item.bytes.as_slice()));
    Ok((format!("{name}.tar.gz"), archive(files, &[], release.time)?))
}

/// A compressed archive of folders and files; everything is root's and as old as `time`.
pub(super) fn archive<'a>(
    files: impl IntoIterator<Item = (String, u32, &'a [u8])>,
    folders: &[String],
    time: u32,
) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(time.into());
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header
    };
    for folder in folders {
        let mut header = header(0o755, 0);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, folder, &[][..])?;
    }
    for (path, mode, bytes) in files {
        archive.append_data(&mut header(mode, bytes.len()), path, bytes)?;
    }
    zipped(&archive.into_inner()?)
}

/// Compressed, without the time at which that was done.
pub(super) fn zipped(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}
