//! `dirtyrig doctor`: what this machine offers, what it lacks, and how to get it.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
};

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::{
    commands::exit,
    engine::probing,
    machine::{
        Facts,
        check::{self, Checked, Finding, Status},
    },
    scenario::probe_mode::ProbeMode,
    stdout,
};

/// Version of what `--json` prints; raised when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Check what this machine offers
///
/// Each requirement is ok, degraded (it works, with less accuracy or reach) or missing, with what was found and what to
/// do about it. Required are KVM with its dirty ring, a CPU and some memory; without the optional ones the rig runs
/// guests all the same, and says what it could not measure.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
JSON:
  {\"schema_version\": 1,
   \"ready\": whether every required check is ok or degraded,
   \"checks\": [{\"name\", \"required\": bool, \"status\": \"ok\" | \"degraded\" | \"missing\",
               \"found\": text, \"remedy\": text or null}],
   \"facts\": what the checks judged, as in the manifest of a recording}

Exit code: 0 if ready, 4 if a required check is missing.

Examples:
  dirtyrig doctor
  dirtyrig doctor | grep -v ^ok
  dirtyrig doctor --json | jq -r '.checks[] | select(.status != \"ok\") | .remedy'")]
pub struct Args {
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    ready: bool,
    checks: &'a [Checked],
    facts: &'a Facts,
}

/// Checks everything, prints it, and returns the exit code.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let facts = Facts::gather();
    let mut checks = check::all(&facts);
    checks.push(probes(&checks));
    let ready = !checks.iter().any(Checked::is_fatal);
    if args.json {
        stdout::json(&Report {
            schema_version: SCHEMA_VERSION,
            ready,
            checks: &checks,
            facts: &facts,
        })?;
    } else {
        stdout::data(table(&checks, Look::of(&io::stdout())))?;
    }
    Ok(if ready { exit::OK } else { exit::MISSING })
}

/// Attaches the probes for a moment, as `run --probes require` does: the one check that no fact can stand for.
fn probes(others: &[Checked]) -> Checked {
    let finding = match probing::resolve(ProbeMode::Require) {
        Ok(_) => Finding {
            status: Status::Ok,
            found: "all of them can be attached".to_owned(),
            remedy: None,
        },
        Err(none) => Finding {
            status: Status::Missing,
            found: none.why().to_owned(),
            // Where no other check knows it, the reason itself says what to do.
            remedy: check::remedy_of_probes(others).map(str::to_owned),
        },
    };
    Checked {
        name: "probes",
        required: false,
        finding,
    }
}

/// Whom the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Someone who reads: a remedy has its own line, to be copied.
    Terminal { colour: bool },
    /// A pipe or a file: one line a check, the remedy at its end.
    Plain,
}

impl Look {
    fn of(stdout: &io::Stdout) -> Self {
        if stdout.is_terminal() {
            // The convention of no-color.org: set and not empty.
            Self::Terminal {
                colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            }
        } else {
            Self::Plain
        }
    }
}

fn table(checks: &[Checked], look: Look) -> String {
    let width = checks.iter().map(|checked| checked.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for checked in checks {
        let finding = &checked.finding;
        let (word, style) = match finding.status {
            Status::Ok => ("ok", AnsiColor::Green.on_default()),
            Status::Degraded => ("degraded", AnsiColor::Yellow.on_default()),
            Status::Missing => ("missing", AnsiColor::Red.on_default().bold()),
        };
        let style = if look == (Look::Terminal { colour: true }) {
            style
        } else {
            Style::new()
        };
        let need = if checked.required { "required" } else { "optional" };
        let line = format!(
            "{style}{word:<8}{style:#}  {need}  {:<width$}  {}",
            checked.name, finding.found
        );
        // Writing to a String can't fail.
        let _ = match (&finding.remedy, look) {
            (None, _) => writeln!(text, "{line}"),
            (Some(remedy), Look::Plain) => writeln!(text, "{line}; remedy: {remedy}"),
            (Some(remedy), Look::Terminal { .. }) => {
                writeln!(text, "{line}\n{:indent$}{remedy}", "", indent = width + 22)
            }
        };
    }
    text + &conclusion(checks)
}

fn conclusion(checks: &[Checked]) -> String {
    let names = |wanted: fn(&Checked) -> bool| {
        let names: Vec<_> = checks
            .iter()
            .filter(|checked| wanted(checked))
            .map(|checked| checked.name)
            .collect();
        names.join(", ")
    };
    let fatal = names(Checked::is_fatal);
    if !fatal.is_empty() {
        return format!("Not ready, for want of: {fatal}.");
    }
    let without = names(|checked| checked.finding.status == Status::Missing);
    if without.is_empty() {
        "Ready: guests can be run and limited.".to_owned()
    } else {
        format!("Ready: guests can be run and limited, without: {without}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::check::fixture::healthy;

    fn checked(name: &'static str, required: bool, status: Status, remedy: Option<&str>) -> Checked {
        let finding = Finding {
            status,
            found: format!("about {name}"),
            remedy: remedy.map(str::to_owned),
        };
        Checked {
            name,
            required,
            finding,
        }
    }

    fn three() -> [Checked; 3] {
        [
            checked("kvm", true, Status::Ok, None),
            checked("memory", true, Status::Degraded, Some("free some")),
            checked("bpf", false, Status::Missing, Some("sudo it")),
        ]
    }

    #[test]
    fn piped_it_is_a_line_a_check() {
        let expected = "\
ok        required  kvm     about kvm
degraded  required  memory  about memory; remedy: free some
missing   optional  bpf     about bpf; remedy: sudo it
Ready: guests can be run and limited, without: bpf.";
        assert_eq!(table(&three(), Look::Plain), expected);
    }

    #[test]
    fn on_a_terminal_remedies_stand_alone_under_what_was_found() {
        let expected = "\
ok        required  kvm     about kvm
degraded  required  memory  about memory
                            free some
missing   optional  bpf     about bpf
                            sudo it
Ready: guests can be run and limited, without: bpf.";
        assert_eq!(table(&three(), Look::Terminal { colour: false }), expected);
        let coloured = table(&three(), Look::Terminal { colour: true });
        assert!(
            coloured.starts_with("\u{1b}[32mok      \u{1b}[0m  required  kvm"),
            "{coloured:?}"
        );
    }

    #[test]
    fn what_is_fatal_is_named() {
        let checks = [
            checked("kvm", true, Status::Missing, None),
            checked("bpf", false, Status::Missing, None),
        ];
        assert_eq!(conclusion(&checks), "Not ready, for want of: kvm.");
        assert_eq!(conclusion(&checks[..0]), "Ready: guests can be run and limited.");
    }

    #[test]
    fn json_keeps_its_promise() {
        let facts = healthy();
        let checks = check::all(&facts);
        let report = Report {
            schema_version: SCHEMA_VERSION,
            ready: true,
            checks: &checks,
            facts: &facts,
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["checks"][0]["name"], "kvm");
        assert_eq!(json["checks"][0]["status"], "ok");
        assert_eq!(json["checks"][0]["required"], true);
        assert!(json["checks"][0]["remedy"].is_null());
        assert_eq!(json["facts"]["kvm"]["device"]["state"], "usable");
        // The manifest of a recording is read back.
        assert_eq!(serde_json::from_value::<Facts>(json["facts"].clone()).unwrap(), facts);
    }
}
