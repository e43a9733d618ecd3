//! Figures drawn from recordings alone.
//!
//! A figure is a function from a recording to [pages](page::Page) and one line of [`FIGURES`]; `draw` turns pages into SVG,
//! `export` the same SVG into PNG.

mod axis;
mod data;
mod draw;
mod export;
mod figures;
mod marks;
mod page;
mod published;
mod style;
#[cfg(test)]
mod tests;
mod text;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hdrhistogram::Histogram;

use crate::recording::schema::{Sample, Summary};
use page::Page;

/// What the figures are drawn from.
#[derive(Clone, Copy)]
pub(crate) struct RecordingView<'a> {
    /// Name of the recording, such as its folder's.
    pub(crate) title: &'a str,
    /// The machine in one line: CPU, kernel, and what else a reader must know.
    pub(crate) machine: &'a str,
    pub(crate) samples: &'a [Sample],
    pub(crate) summaries: &'a [Summary],
    /// Lengths of stalls, where they were recorded.
    pub(crate) stalls: &'a [Stalls],
}

/// The stalls of one cell, or of any group that is one curve.
pub(crate) struct Stalls {
    /// What the curve is called.
    pub(crate) label: String,
    /// Microseconds.
    pub(crate) lengths: Histogram<u64>,
}

/// What of a recording is to be drawn.
#[derive(Clone, Copy, Default)]
pub(crate) struct Choice<'a> {
    /// Names of figures; all where none is given.
    pub(crate) figures: Option<&'a [String]>,
    /// Cells that figures over time show; a few that stand for the others where none is given.
    pub(crate) cells: &'a [u32],
}

/// Why a figure was not drawn: it would be empty or mislead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skip(String);

impl Skip {
    fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// One kind of figure.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// The question it answers.
    pub(crate) about: &'static str,
    pages: fn(&RecordingView<'_>, &Choice<'_>) -> Result<Vec<Page>, Skip>,
}

/// Every figure there is.
pub(crate) const FIGURES: &[Figure] = &[
    figures::convergence::FIGURE,
    figures::floor::FIGURE,
    figures::achieved::FIGURE,
    figures::utilisation::FIGURE,
    figures::throttle::FIGURE,
    figures::error_map::FIGURE,
    figures::settle::FIGURE,
    figures::stalls::FIGURE,
    figures::overview::FIGURE,
    figures::slept::FIGURE,
];

/// A picture format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Svg,
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
pub(crate) enum PlotError {
    #[error("there is no figure `{name}`: choose from {}", names())]
    UnknownFigure { name: String },
    #[error("cell {cell} is not in recording `{recording}`, which has the cells {has}")]
    UnknownCell { cell: u32, recording: String, has: String },
    #[error("can't draw figure `{figure}`: {reason}")]
    Draw { figure: &'static str, reason: String },
    #[error("can't write figure {}: check that the folder can be written to and the disk has room", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A drawn picture that has not been written.
pub(crate) struct Picture {
    /// File name without extension.
    pub(crate) name: String,
    pub(crate) svg: String,
}

/// What came of one figure.
pub(crate) struct Outcome {
    pub(crate) figure: &'static Figure,
    /// The pictures, or the reason why there are none.
    pub(crate) pictures: Result<Vec<Picture>, Skip>,
}

/// Draws the chosen figures into memory.
pub(crate) fn pictures(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Outcome>, PlotError> {
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

/// Draws the chosen figures into `out`, says on stderr which had nothing to show, and returns the files.
pub(crate) fn draw_all(
    view: &RecordingView<'_>,
    out: &Path,
    formats: &[Format],
    choice: &Choice<'_>,
) -> Result<Vec<PathBuf>, PlotError> {
    let outcomes = pictures(view, choice)?;
    fs::create_dir_all(out).map_err(|source| PlotError::Write {
        path: out.to_owned(),
        source,
    })?;
    let mut written = Vec::new();
    for outcome in outcomes {
        let pictures = match outcome.pictures {
            Ok(pictures) => pictures,
            Err(Skip(reason)) => {
                eprintln!("{}: not drawn, {reason}", outcome.figure.name);
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
                written.push(path);
            }
        }
    }
    Ok(written)
}

fn picture(figure: &'static Figure, page: &Page) -> Result<Picture, PlotError> {
    let svg = draw::svg(page).map_err(|error| PlotError::Draw {
        figure: figure.name,
        reason: error.to_string(),
    })?;
    Ok(Picture {
        name: format!("{}{}", figure.name, page.suffix),
        svg,
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
    match cells.iter().find(|cell| !view.samples.iter().any(|row| row.cell == **cell)) {
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
