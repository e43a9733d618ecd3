//! `dirtyrig plot`: figures from recordings, without running anything.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::{
    commands::{exit, output::note},
    plot::{Choice, FIGURES, Format, RecordingView, Source, draw_all},
    recording::Recording,
    stdout::data,
};

/// Draw the figures of recordings
///
/// Nothing is run: figures are drawn from the rows that `run` and `sweep` left. A figure that would be empty is left
/// out, and stderr says why. The names of the files written go to stdout.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = after_help())]
pub struct Args {
    /// Folders of recordings
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,

    /// Figures to draw [default: all that have something to show]
    #[arg(long = "figure", value_name = "NAME", value_delimiter = ',')]
    figures: Vec<String>,

    /// Formats to write
    #[arg(long = "format", value_name = "FORMAT", value_enum, value_delimiter = ',', default_values = ["svg", "png"])]
    formats: Vec<Format>,

    /// Folder for the figures, with a folder in it for each of several recordings [default: DIR/plots]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Cells for the figures over time and of stalls [default: the lowest quotas on the largest rings]
    #[arg(long = "cell", value_name = "N", value_delimiter = ',')]
    cells: Vec<u32>,
}

fn after_help() -> String {
    let width = FIGURES.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    let figures: Vec<String> = FIGURES
        .iter()
        .map(|figure| format!("  {:width$}  {}", figure.name, figure.about))
        .collect();
    format!(
        "Figures:\n{}\n\nExamples:\n  dirtyrig plot results/DIR\n  dirtyrig plot results/DIR --figure \
         floor,achieved --format svg\n  dirtyrig plot results/DIR --figure convergence --cell 3,7 --out figures",
        figures.join("\n")
    )
}

/// Draws them.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let recordings = args.dirs.iter().map(Recording::open).collect::<Result<Vec<_>, _>>()?;
    let sources = recordings.iter().map(source).collect::<anyhow::Result<Vec<_>>>()?;
    let views: Vec<_> = sources.iter().map(Source::view).collect();
    for (index, recording) in recordings.iter().enumerate() {
        let out = match &args.out {
            None => plots_of(&recording.dir),
            Some(out) if args.dirs.len() == 1 => out.clone(),
            Some(out) => out.join(recording.name()),
        };
        let choice = Choice {
            figures: (!args.figures.is_empty()).then_some(&args.figures),
            cells: &args.cells,
            // What compares recordings is drawn once, with the first.
            others: if index == 0 { &views[1..] } else { &[] },
        };
        for path in drawn(recording, &views[index], &out, &args.formats, &choice)? {
            data(path.display())?;
        }
    }
    Ok(exit::OK)
}

/// Where the figures of the recording in `dir` go unless something else was asked for.
pub fn plots_of(dir: &Path) -> PathBuf {
    dir.join("plots")
}

/// Draws the chosen figures of a recording into `out`.
pub fn draw(
    recording: &Recording,
    out: &Path,
    formats: &[Format],
    choice: &Choice<'_>,
) -> anyhow::Result<Vec<PathBuf>> {
    drawn(recording, &source(recording)?.view(), out, formats, choice)
}

fn drawn(
    recording: &Recording,
    view: &RecordingView<'_>,
    out: &Path,
    formats: &[Format],
    choice: &Choice<'_>,
) -> anyhow::Result<Vec<PathBuf>> {
    let drawn = draw_all(view, out, formats, choice);
    let drawn = drawn.with_context(|| format!("can't draw {}", recording.dir.display()))?;
    for skipped in drawn.skipped {
        note(format_args!("note: {skipped}"));
    }
    Ok(drawn.files)
}

/// What it is drawn from; what it lacks goes to stderr.
fn source(recording: &Recording) -> anyhow::Result<Source> {
    if let Some(gaps) = recording.gaps() {
        note(format_args!("note: {}: {gaps}", recording.dir.display()));
    }
    Ok(Source::of(recording, &recording.name())?)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;
    use crate::{
        model::{Sample, Summary},
        recording::{Manifest, Recorder},
    };

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(words: &[&str]) -> Args {
        let words = std::iter::once("plot").chain(words.iter().copied());
        let matches = Only::command().try_get_matches_from(words).expect("good flags");
        Only::from_arg_matches(&matches).expect("good flags").args
    }

    fn recorded(dir: &Path) {
        let manifest = Manifest::new(1, [0], serde_json::Map::new(), serde_json::Value::Null);
        let mut recorder = Recorder::create(dir.to_owned(), manifest).expect("a new folder");
        let sample = |t_s: f64| Sample {
            t_s,
            quota_mib_s: (t_s >= 0.0).then_some(64.0),
            ring_mib_s: Some(60.0),
            guest_mib_s: Some(62.0),
            ..Sample::default()
        };
        let samples: Vec<_> = [-1.0, 0.0, 1.0, 2.0].map(sample).into();
        recorder.append_samples(&samples).expect("written");
        let summary = Summary {
            vcpus: 1,
            quota_mib_s: Some(64.0),
            ..Summary::default()
        };
        recorder.append_summaries(0, &[summary]).expect("written");
        recorder.finish().expect("written");
    }

    #[test]
    fn draws_a_recording_into_its_folder() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dir = scratch.path().join("run");
        recorded(&dir);
        let words = dir.to_str().expect("a plain path");
        assert_eq!(run(&parsed(&[words, "--cell", "0"])).expect("drawn"), exit::OK);
        for file in ["convergence.svg", "convergence.png"] {
            assert!(plots_of(&dir).join(file).is_file(), "{file} is missing");
        }
        assert!(!plots_of(&dir).join("floor.svg").exists(), "one ring makes no floor");
    }

    #[test]
    fn several_recordings_get_a_folder_each() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dirs = ["a", "b"].map(|name| scratch.path().join(name));
        for dir in &dirs {
            recorded(dir);
        }
        let out = scratch.path().join("out");
        let words = [&dirs[0], &dirs[1], &out].map(|path| path.to_str().expect("a plain path"));
        let args = parsed(&[
            words[0],
            words[1],
            "--out",
            words[2],
            "--format",
            "svg",
            "--figure",
            "convergence",
        ]);
        run(&args).expect("drawn");
        assert!(out.join("a/convergence.svg").is_file() && out.join("b/convergence.svg").is_file());
        assert!(!out.join("a/convergence.png").exists());
    }

    #[test]
    fn a_folder_that_is_no_recording_is_refused() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let words = scratch.path().to_str().expect("a plain path");
        assert!(run(&parsed(&[words])).is_err());
    }

    #[test]
    fn the_help_names_every_figure() {
        // Wrapped to the terminal, so blanks don't count.
        let plain = |text: &str| text.split_whitespace().collect::<String>();
        let help = plain(&Only::command().render_long_help().to_string());
        for figure in FIGURES {
            let line = plain(&format!("{} {}", figure.name, figure.about));
            assert!(help.contains(&line), "{} is not in the help", figure.name);
        }
    }
}
