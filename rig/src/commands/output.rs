//! Notes go to stderr, which doesn't panic when the reader has gone.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Prints `text` and a line end to stderr; a stderr that nobody reads is no reason to end an experiment.
pub fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
