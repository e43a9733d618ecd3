//! Exit codes, and the one place where an error is printed.

use std::process::ExitCode;

use super::output::note;
use crate::{
    engine::{Interrupted, interrupt, probing::NoProbes},
    machine::MissingRequirement,
    observe::watched::NoObserver,
    outside::OutsideError,
    stdout::StdoutClosed,
};

/// Everything went well.
pub const OK: u8 = 0;
/// A check was made and failed.
pub const CHECK_FAILED: u8 = 1;
/// An error: bad input, a file that can't be written, a guest that died.
pub const ERROR: u8 = 2;
/// The machine lacks a requirement.
pub const MISSING: u8 = 4;
/// Ended by ctrl-c or SIGTERM: 128 + SIGINT, what a shell expects of an interrupted program. Finished cells are kept.
pub const INTERRUPTED: u8 = interrupt::EXIT_CODE;

/// Turns the outcome of a command into the exit code, and tells the user of an error.
pub fn report(outcome: anyhow::Result<u8>) -> ExitCode {
    ExitCode::from(outcome.unwrap_or_else(|error| {
        let code = code_of(&error);
        match code {
            OK => {}
            INTERRUPTED => note("interrupted"),
            _ => note(format_args!("error: {}", chain(&error))),
        }
        code
    }))
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<StdoutClosed>() {
        // `dirtyrig ... | head` has read what it wanted.
        OK
    } else if error.is::<Interrupted>() {
        INTERRUPTED
    } else if error.is::<MissingRequirement>()
        || error.is::<NoProbes>()
        || error.is::<NoObserver>()
        || error.downcast_ref().is_some_and(OutsideError::is_requirement)
    {
        MISSING
    } else {
        ERROR
    }
}

/// The error and its sources, one per line; a source that its parent already quotes is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    for source in error.chain().skip(1) {
        let line = source.to_string();
        if !last.contains(&line) {
            text.push_str("\n  because: ");
            text.push_str(&line);
        }
        last = line;
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn each_source_is_printed_once() {
        let error = anyhow!("no such file")
            .context("can't read a.toml: no such file")
            .context("can't run");
        assert_eq!(chain(&error), "can't run\n  because: can't read a.toml: no such file");
    }

    #[test]
    fn codes_survive_a_context() {
        assert_eq!(code_of(&anyhow::Error::new(Interrupted).context("cell 3")), INTERRUPTED);
        assert_eq!(code_of(&anyhow::Error::new(StdoutClosed).context("table")), OK);
        assert_eq!(code_of(&anyhow!("anything else")), ERROR);
    }
}
