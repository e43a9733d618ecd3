//! Data goes to stdout, which doesn't panic when the reader has gone.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::Context;
use serde::Serialize;

/// The reader of stdout has gone (`dirtyrig ... | head`): no error, but nothing more to print.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct StdoutClosed;

/// Prints `text` and a line end to stdout.
pub fn data(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        written => written.context("can't write to stdout"),
    }
}

/// Prints `rows` to stdout as one JSON array.
pub fn json(rows: &impl Serialize) -> anyhow::Result<()> {
    data(serde_json::to_string_pretty(rows).context("can't put the summary into JSON")?)
}
