//! Puts a report where it belongs, without touching a file that is not one.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{MARK, csv};

/// Why a report can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something else is there.
    #[error(
        "`{}` exists and is no report of dirtyrig's, so it is not overwritten: choose another file with --out, or remove it",
        path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The system can't.
    #[error("can't write `{}`: check that the folder exists, can be written to and has room", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// How much of a file is read to know it again.
const HEAD: u64 = 1024;

/// Writes `text` to `path` as a whole: whoever reads it sees the old report or the new one.
pub fn write(path: &Path, text: &str) -> Result<(), WriteError> {
    if !is_free(path)? {
        return Err(WriteError::NotOurs { path: path.to_owned() });
    }
    replace(path, text)
}

fn replace(path: &Path, text: &str) -> Result<(), WriteError> {
    let fresh = path.with_added_extension("new");
    let failed = |source| WriteError::Io {
        path: path.to_owned(),
        source,
    };
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, path))
        .map_err(|source| {
            // Best effort: it is the error above that is to be told.
            let _ = fs::remove_file(&fresh);
            failed(source)
        })
}

/// Writes `files` into the folder `dir`, which must not exist, be empty, or hold an earlier report: `index` is what it is
/// known by. Files of other names stay.
pub fn write_files(dir: &Path, index: &str, files: &[(String, String)]) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io {
        path: dir.to_owned(),
        source,
    };
    let is_empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(source) => return Err(failed(source)),
    };
    let page = dir.join(index);
    if !(is_empty || page.is_file() && is_free(&page)?) {
        return Err(WriteError::NotOurs { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(failed)?;
    files.iter().try_for_each(|(name, text)| replace(&dir.join(name), text))
}

/// Whether nothing is there, or a report of an earlier time.
pub fn is_free(path: &Path) -> Result<bool, WriteError> {
    let failed = |source| WriteError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(source) => return Err(failed(source)),
    };
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).map_err(failed)?;
    let head = String::from_utf8_lossy(&head);
    Ok(head.is_empty() || head.contains(MARK) || head.starts_with(&format!("{},cell,", csv::FIRST_COLUMN)))
}
