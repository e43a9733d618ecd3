//! Where results go, and what is written beside the rows.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::plot;
use crate::{
    commands::output::note,
    machine::Facts,
    plot::{Choice, Format},
    recording::{Recording, RecordingError},
};

/// Where results go when nothing was said.
const RESULTS: &str = "results";

/// The folder asked for, or a new one under `results/` whose name says when and what. It must not hold anything yet;
/// that is checked before anything is run, and once more when it is created.
pub(super) fn folder(asked: Option<&Path>, name: &str) -> Result<PathBuf, RecordingError> {
    let dir = asked.map_or_else(
        || Path::new(RESULTS).join(format!("{}-{name}", timestamp())),
        Path::to_owned,
    );
    match fs::read_dir(&dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(dir),
        Ok(false) => Err(RecordingError::FolderNotEmpty { dir }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(dir),
        Err(source) => Err(RecordingError::Io {
            operation: "use as a folder for results",
            path: dir,
            source,
        }),
    }
}

/// UTC, to the second, in a form that sorts and that every file system takes: `20261123-090636`.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string()
}

/// A seed for who gave none: short enough to be typed again.
pub(super) fn seed() -> u64 {
    u64::from(rand::random::<u32>())
}

/// Draws the figures of a recording that is done. That they can't be drawn is no reason to lose the summary.
///
/// Those of a VM that is not ours are left to `plot`: it goes on running, and drawing would take the host's CPUs from it for
/// as long as a minute or two.
pub(super) fn plots(recording: &Recording) {
    if recording.summaries.iter().any(|row| row.guest.is_none()) {
        let dir = recording.dir.display();
        note(format_args!(
            "figures: `dirtyrig plot {dir}` draws them, here or on another machine"
        ));
        return;
    }
    let out = plot::plots_of(&recording.dir);
    if let Err(error) = plot::draw(recording, &out, &[Format::Svg, Format::Png], &Choice::default()) {
        note(format_args!(
            "warning: {error:#}; `dirtyrig plot {}` tries again",
            recording.dir.display()
        ));
    }
}

/// Facts about this machine for the manifest. Gathered before guests run, because the machine's noise is among them.
pub(super) fn machine() -> Map<String, Value> {
    match serde_json::to_value(Facts::gather()) {
        Ok(Value::Object(facts)) => facts,
        _ => unreachable!("the facts are a struct of plain values with named fields"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(folder(Some(dir.path()), "run").is_ok(), "empty");
        assert!(folder(Some(&dir.path().join("new")), "run").is_ok(), "not there yet");
        fs::write(dir.path().join("manifest.json"), "{}").expect("a file");
        let error = folder(Some(dir.path()), "run").expect_err("not empty").to_string();
        assert!(error.contains("--out") && error.contains("--resume"), "{error}");
        let error = folder(Some(&dir.path().join("manifest.json")), "run").expect_err("no folder");
        assert!(matches!(error, RecordingError::Io { .. }), "{error}");
    }
}
