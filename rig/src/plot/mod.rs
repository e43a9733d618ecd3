//! Figures drawn from recordings alone.
//!
//! A figure is a function from a recording to [pages](page::Page) and one line of [`FIGURES`]; `draw` turns pages into SVG,
//! `export` the same SVG into PNG.

#![allow(
    clippy::cast_possible_wrap,
    reason = "what becomes i32 here are counts of lines, panels and ticks of one page"
)]

mod axis;
mod canvas;
mod data;
mod draw;
mod export;
mod figures;
mod machine;
mod marks;
mod page;
mod published;
mod source;
mod style;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use hdrhistogram::Histogram;

use crate::{
    model::{Sample, Summary},
    recording::{StallInterval, StallKind},
};
pub use machine::machine_line;
use page::Page;
pub use source::Source;

/// What the figures are drawn from.
#[derive(Clone, Copy)]
pub struct RecordingView<'a> {
    /// Name of the recording, such as its folder's.
    pub title: &'a str,
    /// The machine in one line: CPU, kernel, and what else a reader must know.
    pub machine: &'a str,
    /// Rates over time, of unfinished cells too.
    pub samples: &'a [Sample],
    /// A row per vCPU of each finished cell.
    pub summaries: &'a [Summary],
    /// Lengths of stalls, where they were recorded.
    pub stalls: &'a [Stalls],
}

/// The stalls of one cell, those of all its vCPUs together.
pub struct Stalls {
    /// Which cell of the recording.
    pub cell: u32,
    /// Nanoseconds.
    pub lengths: Histogram<u64>,
}

impl Stalls {
    /// The stalls of each cell, from the intervals of a recording.
    pub fn of(intervals: impl IntoIterator<Item = StallInterval>) -> Vec<Self> {
        let mut cells: BTreeMap<u32, Histogram<u64>> = BTreeMap::new();
        for interval in intervals
            .into_iter()
            .filter(|interval| interval.kind == StallKind::Stall)
        {
            match cells.entry(interval.cell) {
                Entry::Vacant(empty) => {
                    empty.insert(interval.histogram);
                }
                Entry::Occupied(mut known) => data::merge(known.get_mut(), &interval.histogram),
            }
        }
        cells
            .into_iter()
            .map(|(cell, lengths)| Self { cell, lengths })
            .collect()
    }
}

/// What of a recording is to be drawn.
#[derive(Clone, Copy, Default)]
pub struct Choice<'a> {
    /// Names of figures; all where none is given.
    pub figures: Option<&'a [String]>,
    /// Cells that figures over time show; a few that stand for the others where none is given.
    pub cells: &'a [u32],
    /// Other recordings, for the figures that compare.
    pub others: &'a [RecordingView<'a>],
}

/// Why a figure was not drawn: it would be empty or mislead.
#[derive(Debug, PartialEq, Eq)]
pub struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Skip {
    fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// One kind of figure.
pub struct Figure {
    /// As given to `--figure`, and the file's name.
    pub name: &'static str,
    /// The question it answers.
    pub about: &'static str,
    pages: fn(&RecordingView<'_>, &Choice<'_>) -> Result<Vec<Page>, Skip>,
}

/// Every figure there is.
pub const FIGURES: &[Figure] = &[
    figures::convergence::FIGURE,
    figures::floor::FIGURE,
    figures::achieved::FIGURE,
    figures::utilisation::FIGURE,
    figures::throttle::FIGURE,
    figures::error_map::FIGURE,
    figures::settle::FIGURE,
    figures::stalls::FIGURE,
    figures::stalls_compared::FIGURE,
    figures::overview::FIGURE,
    figures::slept::FIGURE,
    figures::compared::FIGURE,
    figures::fidelity::FIGURE,
];

/// A picture format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Scalable; words stay words.
    Svg,
    /// Twice the nominal size in pixels.
    Png,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
}

/// Why figures could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// No figure has this name.
    #[error("there is no figure `{name}`: choose from {}", names())]
    UnknownFigure {
        /// The name that was given.
        name: String,
    },
    /// The recording has no samples of this cell.
    #[error("cell {cell} is not in recording `{recording}`, which has the cells {has}")]
    UnknownCell {
        /// The number that was given.
        cell: u32,
        /// Title of the recording.
        recording: String,
        /// The cells there are.
        has: String,
    },
    /// The picture could not be made.
    #[error("can't draw figure `{figure}`: {reason}")]
    Draw {
        /// Name of the figure.
        figure: &'static str,
        /// What the drawing library says.
        reason: String,
    },
    /// The picture could not be stored.
    #[error("can't write figure {}: check that the folder can be written to and the disk has room", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A drawn picture that has not been written.
pub struct Picture {
    /// File name without extension.
    pub name: String,
    /// The document.
    pub svg: String,
    /// Its nominal width in pixels.
    pub width: i32,
}

/// What came of one figure.
pub struct Outcome {
    /// Which figure.
    pub figure: &'static Figure,
    /// The pictures, or the reason why there are none.
    pub pictures: Result<Vec<Picture>, Skip>,
}

/// Draws the chosen figures into memory.
pub fn pictures(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Outcome>, PlotError> {
    check_cells(view, choice.cells)?;
    chosen(choice.figures)?
        .into_iter()
        .map(|figure| {
            let pictures = match (figure.pages)(view, choice) {
                Ok(pages) => Ok(pages
                    .iter()
                    .map(|page| picture(figure, page))
                    .collect::<Result<_, _>>()?),
                Err(skip) => Err(skip),
            };
            Ok(Outcome { figure, pictures })
        })
        .collect()
}

/// What was drawn, and what was not.
pub struct Drawn {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Which figures had nothing to show, and why, a line each.
    pub skipped: Vec<String>,
}

/// Draws the chosen figures into `out`.
pub fn draw_all(
    view: &RecordingView<'_>,
    out: &Path,
    formats: &[Format],
    choice: &Choice<'_>,
) -> Result<Drawn, PlotError> {
    let outcomes = pictures(view, choice)?;
    fs::create_dir_all(out).map_err(|source| PlotError::Write {
        path: out.to_owned(),
        source,
    })?;
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let pictures = match outcome.pictures {
            Ok(pictures) => pictures,
            Err(reason) => {
                skipped.push(format!("figure {} not drawn: {reason}", outcome.figure.name));
                continue;
            }
        };
        for picture in pictures {
            for format in formats {
                let bytes = match format {
                    Format::Svg => picture.svg.clone().into_bytes(),
                    Format::Png => export::png(&picture.svg).map_err(|reason| PlotError::Draw {
                        figure: outcome.figure.name,
                        reason,
                    })?,
                };
                let path = out.join(format!("{}.{}", picture.name, format.extension()));
                fs::write(&path, bytes).map_err(|source| PlotError::Write {
                    path: path.clone(),
                    source,
                })?;
                files.push(path);
            }
        }
    }
    Ok(Drawn { files, skipped })
}

fn picture(figure: &'static Figure, page: &Page) -> Result<Picture, PlotError> {
    let svg = draw::svg(page).map_err(|error| PlotError::Draw {
        figure: figure.name,
        reason: error.to_string(),
    })?;
    Ok(Picture {
        name: format!("{}{}", figure.name, page.suffix),
        svg,
        width: draw::width(page),
    })
}

fn chosen(names: Option<&[String]>) -> Result<Vec<&'static Figure>, PlotError> {
    let Some(names) = names else {
        return Ok(FIGURES.iter().collect());
    };
    names
        .iter()
        .map(|name| {
            FIGURES
                .iter()
                .find(|figure| figure.name == name)
                .ok_or_else(|| PlotError::UnknownFigure { name: name.clone() })
        })
        .collect()
}

fn check_cells(view: &RecordingView<'_>, cells: &[u32]) -> Result<(), PlotError> {
    match cells
        .iter()
        .find(|cell| !view.samples.iter().any(|row| row.cell == **cell))
    {
        None => Ok(()),
        Some(cell) => Err(PlotError::UnknownCell {
            cell: *cell,
            recording: view.title.to_owned(),
            has: data::spans(view.samples.iter().map(|row| row.cell)),
        }),
    }
}

fn names() -> String {
    let names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
    names.join(", ")
}
