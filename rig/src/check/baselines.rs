//! Recordings kept under a name, to compare later ones with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::recording::{MANIFEST, Manifest, Recording, RecordingError, SAMPLES, STALLS, SUMMARY};

/// Where they are, beside the results.
pub const BASELINES: &str = "results/baselines";

/// Why a baseline can't be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// A name that would be a path.
    #[error("`{name}` is no name for a baseline: letters, digits, `-`, `_` and `.`, not first, such as `main`")]
    BadName {
        /// What was given.
        name: String,
    },
    /// Another one has the name.
    #[error(
        "there is a baseline `{name}` already, and none is ever overwritten: choose another name, or remove `{}` first",
        dir.display()
    )]
    Exists {
        /// The name.
        name: String,
        /// Its folder.
        dir: PathBuf,
    },
    /// Neither a folder nor a name.
    #[error(
        "there is no baseline `{name}`: give the folder of a recording, or {}",
        if known.is_empty() {
            "keep one under a name with `dirtyrig check DIR --save-baseline NAME`".to_owned()
        } else {
            format!("one of {}", known.join(", "))
        }
    )]
    Unknown {
        /// What was given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The folder of many recordings can't be read.
    #[error("`{}` can't be read: give the folder that has the recordings in it", dir.display())]
    NoFolder {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused.
    #[error("can't keep the baseline in `{}`", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The folder of a baseline: `given` itself where it is one, else the one kept under that name in `store`.
pub fn find(store: &Path, given: &Path) -> Result<PathBuf, BaselineError> {
    let name = given.to_string_lossy().into_owned();
    let kept = store.join(given);
    if is_name(&name) && kept.join(MANIFEST).is_file() {
        Ok(kept)
    } else if given.is_dir() {
        Ok(given.to_owned())
    } else {
        Err(BaselineError::Unknown {
            name,
            known: known(store),
        })
    }
}

/// Keeps a copy of `recording` in `store` under `name`, whole or not at all.
pub fn save(store: &Path, name: &str, recording: &Recording) -> Result<PathBuf, BaselineError> {
    if !is_name(name) {
        return Err(BaselineError::BadName { name: name.to_owned() });
    }
    let dir = store.join(name);
    let failed = |source| BaselineError::Io {
        dir: dir.clone(),
        source,
    };
    let exists = || BaselineError::Exists {
        name: name.to_owned(),
        dir: dir.clone(),
    };
    if dir.exists() {
        return Err(exists());
    }
    let partial = store.join(format!(".{name}-{}", std::process::id()));
    fs::create_dir_all(&partial).map_err(failed)?;
    let copied = [SAMPLES, STALLS, SUMMARY, MANIFEST]
        .into_iter()
        .try_for_each(|file| fs::copy(recording.dir.join(file), partial.join(file)).map(drop))
        // A folder that is not empty is never replaced: whoever was first stays.
        .and_then(|()| fs::rename(&partial, &dir));
    copied.map_err(|source| {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_dir_all(&partial);
        if dir.exists() { exists() } else { failed(source) }
    })?;
    Ok(dir)
}

/// Reads a kept baseline, or any recording.
pub fn open(store: &Path, given: &Path) -> anyhow::Result<Recording> {
    let recording: Result<Recording, RecordingError> = Recording::open(find(store, given)?);
    Ok(recording?)
}

/// The recordings in `folder` that were begun before `candidate`, newest first; what can't be read is an error.
pub fn before(folder: &Path, candidate: &Recording) -> anyhow::Result<Vec<Recording>> {
    let entries = fs::read_dir(folder).map_err(|source| BaselineError::NoFolder {
        dir: folder.to_owned(),
        source,
    })?;
    let mut manifests: Vec<(String, PathBuf)> = Vec::new();
    for dir in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let is_recording = dir.join(MANIFEST).is_file();
        if is_recording && dir.canonicalize().ok() != candidate.dir.canonicalize().ok() {
            manifests.push((Manifest::read(&dir)?.started_utc, dir));
        }
    }
    // In RFC 3339, and all in UTC: they sort as they follow each other.
    manifests.retain(|(started, _)| *started <= candidate.manifest.started_utc);
    manifests.sort_unstable_by(|one, other| other.cmp(one));
    let opened: Result<Vec<_>, _> = manifests.into_iter().map(|(_, dir)| Recording::open(dir)).collect();
    Ok(opened?)
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(plain)
}

fn known(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join(MANIFEST).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| is_name(name))
        .collect();
    names.sort_unstable();
    names
}
