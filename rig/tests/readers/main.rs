//! Our output in the tools that users have: each reader's own verdict.

mod hdr_histogram;
mod junit;
mod metrics;
mod recordings;
mod traces;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use dirtyrig_testkit::{readers, run};
use libtest_mimic::Failed;

fn main() {
    run([
        hdr_histogram::trials(),
        junit::trials(),
        metrics::trials(),
        traces::trials(),
    ]
    .into_iter()
    .flatten()
    .collect());
}

/// Runs `command` with `input`; its stdout. That it fails, or says anything on stderr, is a failure with all it said.
fn output_of(command: &mut Command, input: &[u8]) -> Result<String, Failed> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that does not read to the end says why by itself.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output()?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.success() && err.trim().is_empty() {
        Ok(out.into_owned())
    } else {
        Err(format!("{command:?}: {}\n{out}{err}", output.status).into())
    }
}

/// Runs a script with the Python that has the readers.
fn python(script: &str, arguments: &[&str], input: &[u8]) -> Result<String, Failed> {
    let mut command = Command::new(readers().join("bin/python"));
    output_of(command.arg("-c").arg(script).args(arguments), input)
}

/// A file of the reference recording.
fn reference(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../results/reference")
        .join(file)
}
