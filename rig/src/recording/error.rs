//! What can go wrong with a recording, and what to do about it.

use std::{io, path::PathBuf};

use super::schema::SCHEMA_VERSION;

/// Why a recording can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A new recording must not touch an old one.
    #[error(
        "`{}` is not empty and results are never overwritten: choose another folder with --out, or continue what is \
         there with --resume",
        dir.display()
    )]
    FolderNotEmpty {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// Two runs can't share a folder.
    #[error("`{}` is being written by another dirtyrig: wait for it, or choose another folder with --out", dir.display())]
    Busy {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// The folder holds no manifest.
    #[error(
        "`{}` is no recording: it has no manifest.json; give the folder that a run or sweep named as its results",
        dir.display()
    )]
    NotARecording {
        /// The folder that was given.
        dir: PathBuf,
    },
    /// The disk, the quota or the file size limit is exhausted.
    #[error(
        "no room to write `{}`: finished cells are kept; free some space, then continue with --resume",
        path.display()
    )]
    NoRoom {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Any other failure of the system's to read or write.
    #[error("can't {operation} `{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `manifest.json` is not what it should be.
    #[error(
        "`{}` can't be read as a manifest: restore the file as it was recorded, or record again",
        path.display()
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Recorded before a column changed its meaning.
    #[error(
        "`{}` has schema version {found}, older than {SCHEMA_VERSION}, which this dirtyrig reads: use dirtyrig {tool}, \
         which wrote it, or record again",
        path.display()
    )]
    OlderSchema {
        /// The manifest.
        path: PathBuf,
        /// Its schema version.
        found: u64,
        /// The version of dirtyrig that wrote it, or what is known of it.
        tool: String,
    },
    /// Recorded by a dirtyrig to come.
    #[error(
        "`{}` has schema version {found}, newer than {SCHEMA_VERSION}, which this dirtyrig reads: update to dirtyrig \
         {tool} or later",
        path.display()
    )]
    NewerSchema {
        /// The manifest.
        path: PathBuf,
        /// Its schema version.
        found: u64,
        /// The version of dirtyrig that wrote it, or what is known of it.
        tool: String,
    },
    /// A file of the recording is gone.
    #[error("`{}` is missing from the recording: restore it from where the folder was copied, or record again", path.display())]
    MissingFile {
        /// The file that should be there.
        path: PathBuf,
    },
    /// The same quantity in another unit.
    #[error(
        "`{}` has a column `{column}` where `{expected}` is expected: the units differ; convert the values and rename \
         the column, or record again",
        path.display()
    )]
    WrongUnit {
        /// The file.
        path: PathBuf,
        /// The column it has.
        column: String,
        /// The column it should have.
        expected: String,
    },
    /// A column the schema does not know.
    #[error("`{}` has a column `{column}`, which schema {SCHEMA_VERSION} does not know: remove the column", path.display())]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A column that is not there, or there twice.
    #[error("`{}` has the column `{column}` {found} times, expected once: restore the file as it was recorded", path.display())]
    ColumnCount {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// How often it occurs.
        found: usize,
    },
    /// Text that is not UTF-8.
    #[error("`{}` is {encoding} text: save it as CSV in UTF-8, or restore the file as it was recorded", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Its encoding.
        encoding: &'static str,
    },
    /// A value that can't be read.
    #[error("`{}`, line {line}, {place}: restore the file as it was recorded, or remove the line", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 with the header.
        line: u64,
        /// Which column, or how many there are.
        place: String,
        /// What the parser says.
        source: csv::Error,
    },
    /// A finished recording that ends in the middle of a row.
    #[error(
        "`{}` is truncated: line {line} is cut off; copy the file again from where it was recorded",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The line that is cut off, counted from 1 with the header.
        line: u64,
    },
    /// A finished recording whose manifest promises another number of rows.
    #[error(
        "`{}` has {found} rows up to line {line}, but the manifest promises {promised}: copy the file again from where \
         it was recorded",
        path.display()
    )]
    RowCount {
        /// The file.
        path: PathBuf,
        /// Its last line, counted from 1 with the header.
        line: u64,
        /// How many rows there are.
        found: u64,
        /// How many rows the manifest promises.
        promised: u64,
    },
    /// An interval of the stall log that can't be read.
    #[error("`{}`, line {line}: {problem}; restore the file as it was recorded, or remove the line", path.display())]
    BadInterval {
        /// The log.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A value with a line break would make rows of a crashed run ambiguous.
    #[error("a value for `{}` contains a line break, which a recording can't hold: rename the VMM, limiter or guest", path.display())]
    LineBreak {
        /// The file it was meant for.
        path: PathBuf,
    },
    /// The rows given as a cell's summary are not one for each of its vCPUs.
    #[error("cell {cell} can't be finished: {problem}")]
    BadCommit {
        /// The cell.
        cell: u32,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl RecordingError {
    /// Sorts a failed write: a full disk has its own remedy.
    pub(super) fn write(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoRoom { path, source }
            }
            _ => Self::Io {
                operation: "write",
                path,
                source,
            },
        }
    }

    /// Sorts a failed read: a file that is gone has its own remedy.
    pub(super) fn read(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if source.kind() == io::ErrorKind::NotFound {
            Self::MissingFile { path }
        } else {
            Self::Io {
                operation: "read",
                path,
                source,
            }
        }
    }
}
