//! `dirtyrig report`: what recordings say.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;

use crate::{
    commands::{exit, output::note},
    recording::Recording,
    report::{Report, csv, html, markdown, write},
    stdout::data,
};

/// Make a page, a table or JSON of what recordings found
///
/// The page is one HTML file with findings, figures, tables and definitions; it needs no network. Several recordings are
/// shown side by side. One that is running or was interrupted is reported with what it has, and what it lacks is said.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig report results/night                        writes results/night/report.html
  dirtyrig report results/before results/after --out change.html
  dirtyrig report results/night --format html-files    the page for Jenkins: a folder
  dirtyrig report results/night --format md            the findings, to be pasted
  dirtyrig report results/night --format json | jq -r '.recordings[].findings[]'

docs/report-schema.md describes the JSON. A file that is no report is never overwritten.")]
pub struct Args {
    /// Folders of recordings
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,

    /// What to make
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "html")]
    format: Format,

    /// File to write, or folder for html-files [default: report.html or report in the first DIR; stdout for the others]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a report can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One self-contained page
    Html,
    /// The page as a folder, style and pictures as files beside it and no script, for a server with a strict
    /// Content-Security-Policy
    HtmlFiles,
    /// Findings and a table, to be pasted
    Md,
    /// The rows of all recordings, those of summary.csv
    Csv,
    /// Everything, for programs
    Json,
}

/// Makes it. The name of a file that is written goes to stdout.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let recordings = args.dirs.iter().map(Recording::open).collect::<Result<Vec<_>, _>>()?;
    for recording in &recordings {
        if let Some(gaps) = recording.gaps() {
            note(format_args!("note: {}: {gaps}", recording.dir.display()));
        }
    }
    let out = match (&args.out, args.format) {
        (Some(path), _) => Some(path.clone()),
        (None, Format::Html) => Some(args.dirs[0].join("report.html")),
        (None, Format::HtmlFiles) => Some(args.dirs[0].join("report")),
        (None, _) => None,
    };
    let report = Report::of(&recordings);
    if let (Format::HtmlFiles, Some(dir)) = (args.format, &out) {
        write::write_files(dir, html::INDEX, &html::render_files(&report, &recordings)?)?;
        data(dir.join(html::INDEX).display())?;
        return Ok(exit::OK);
    }
    let text = match args.format {
        Format::Html | Format::HtmlFiles => html::render(&report, &recordings)?,
        Format::Md => markdown::render(&report),
        Format::Csv => csv::render(&report)?,
        Format::Json => serde_json::to_string_pretty(&report).context("can't put the report into JSON")? + "\n",
    };
    match out {
        Some(path) => {
            write::write(&path, &text)?;
            data(path.display())?;
        }
        None => data(text.trim_end())?,
    }
    Ok(exit::OK)
}
