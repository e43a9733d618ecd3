//! A file that only grows, by whole rows.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use super::RecordingError;

/// An append-only file in which a failed write leaves nothing behind.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length of the whole rows written so far.
    len: u64,
    /// Length at the last commit.
    committed: u64,
    /// Whether bytes of a failed write may lie beyond `len`.
    torn: bool,
}

impl Journal {
    /// Opens a file, creating it with `header` where it does not exist or is empty.
    pub(super) fn open(path: PathBuf, header: &[u8]) -> Result<Self, RecordingError> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| RecordingError::write(&path, source))?;
        let metadata = file.metadata().map_err(|source| RecordingError::read(&path, source))?;
        let mut journal = Self {
            path,
            file,
            len: metadata.len(),
            committed: metadata.len(),
            torn: false,
        };
        if journal.len == 0 {
            journal.append(header)?;
            journal.committed = journal.len;
        }
        Ok(journal)
    }

    /// Hands whole rows to the operating system in one go: from here on they survive the death of this process.
    pub(super) fn append(&mut self, rows: &[u8]) -> Result<(), RecordingError> {
        self.mend()?;
        match self.file.write_all(rows) {
            Ok(()) => {
                self.len += rows.len() as u64;
                Ok(())
            }
            Err(source) => {
                self.torn = true;
                // Best effort: shrinking needs no room. Where it fails, the next append tries again first.
                let _ = self.mend();
                Err(RecordingError::write(&self.path, source))
            }
        }
    }

    /// Waits until everything appended is on the disk: from here on it survives a power cut.
    pub(super) fn commit(&mut self) -> Result<(), RecordingError> {
        self.file
            .sync_data()
            .map_err(|source| RecordingError::write(&self.path, source))?;
        self.committed = self.len;
        Ok(())
    }

    /// Drops everything appended since the last commit.
    pub(super) fn roll_back(&mut self) -> Result<(), RecordingError> {
        self.torn |= self.len != self.committed;
        self.len = self.committed;
        self.mend()
    }

    fn mend(&mut self) -> Result<(), RecordingError> {
        if self.torn {
            self.file
                .set_len(self.len)
                .map_err(|source| RecordingError::write(&self.path, source))?;
            self.torn = false;
        }
        Ok(())
    }
}

/// Replaces a file as a whole: whoever reads it, and whenever the power fails, sees the old content or the new.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), RecordingError> {
    let fresh = path.with_added_extension("new");
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| {
        // Best effort: a leftover does no harm, and the next replacement overwrites it.
        let _ = fs::remove_file(&fresh);
        RecordingError::write(path, source)
    })?;
    fs::rename(&fresh, path).map_err(|source| RecordingError::write(path, source))?;
    sync_folder(path.parent().expect("a recording's files lie in its folder"))
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync_folder(dir: &Path) -> Result<(), RecordingError> {
    File::open(dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| RecordingError::write(dir, source))
}
