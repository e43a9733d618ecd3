//! `dirtyrig trace`: what can be done with a dirty trace.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::{
    commands::{exit, output::note},
    stdout::StdoutClosed,
    trace::{
        Reader,
        export::{self, ExportError},
    },
};

/// Put a dirty trace into a form that other tools read
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Action {
    Export(Export),
}

/// Write every dirtied page as a row
///
/// A row is one page that a vCPU dirtied: when (nanoseconds since the trace began), the thread and its vCPU, address
/// space, memory slot, and page in the slot. Rows of one thread are in the order of time.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  dirtyrig observe --pid 4711 --trace vm.trace --duration 10s
  dirtyrig trace export vm.trace --format csv --out vm.csv
  dirtyrig trace export vm.trace --format csv | head
  dirtyrig trace export vm.trace --format parquet --out vm.parquet")]
struct Export {
    /// Trace that `observe --trace` recorded
    #[arg(value_name = "FILE")]
    trace: PathBuf,

    /// Form of the rows
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Format,

    /// File for the rows; must not exist [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// In which form rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Comma-separated values with a header
    Csv,
    /// Apache Parquet, for data frames
    Parquet,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let Action::Export(export) = &args.action;
    let mut reader = Reader::open(&export.trace)?;
    let exported = match (export.format, &export.out) {
        (Format::Csv, Some(path)) => export::csv(&mut reader, &mut new_file(path)?),
        (Format::Csv, None) => export::csv(&mut reader, &mut io::stdout().lock()),
        (Format::Parquet, Some(path)) => export::parquet(&mut reader, new_file(path)?),
        (Format::Parquet, None) => {
            ensure!(
                !io::stdout().is_terminal(),
                "Parquet is nothing for a terminal: give `--out FILE`, or hand stdout to another program"
            );
            export::parquet(&mut reader, io::stdout())
        }
    };
    let exported = exported.map_err(|error| match error {
        ExportError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => StdoutClosed.into(),
        other => anyhow::Error::from(other),
    })?;
    let trace = export.trace.display();
    if !exported.whole {
        note(format_args!(
            "note: `{trace}` was cut off: there are rows up to there, and whether writes are missing before is not known"
        ));
    }
    if exported.lost > 0 {
        note(format_args!(
            "note: {} of {} writes could not be recorded in `{trace}`",
            exported.lost,
            exported.lost + exported.writes
        ));
    }
    Ok(exit::OK)
}

fn new_file(path: &Path) -> anyhow::Result<std::fs::File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.with_context(|| {
        format!(
            "can't make `{}`: files are not overwritten, give another --out",
            path.display()
        )
    })
}
