//! The command line: which subcommand, with which flags; the commands themselves are in [`crate::commands`].

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::CompleteEnv;

use crate::commands::{
    check, compare, doctor, exit, floor, limit, merge, migrate, observe, plot, report, run, serve, sweep, trace,
};

const ABOUT: &str = "Runs KVM guests under dirty-rate limiters and shows what the limiters did";

const LONG_ABOUT: &str = "\
Runs KVM guests under dirty-rate limiters and shows what the limiters did.

A guest of dirtyrig's own runs on real KVM with dirty rings and writes memory; a limiter, QEMU's or another, holds \
each vCPU to a quota; and every rate is measured twice: by what the limiter reads from the ring, and by a counter that \
the guest keeps itself. Rates are in MiB/s (2^20 bytes), which is also what QEMU's \"MB/s\" are.";

const AFTER: &str = "\
Examples:
  dirtyrig sweep                         reproduce the published finding, in about six minutes
  dirtyrig run --ring 65536 --quota 25   one guest, limited to 25 MiB/s
  dirtyrig floor --ring 4096,65536       the lowest quota that is held, for each ring
  dirtyrig plot results/DIR               its figures again, or some of them
  dirtyrig check results/NEW --baseline results/OLD   whether anything got worse
  dirtyrig report results/DIR             findings, figures and tables as one page
  dirtyrig migrate --help                 a live migration that ends within a promised time
  dirtyrig observe                        any VM of this host, live, from inside the kernel
  dirtyrig run --vcpus 2 --quota 500+none --at '10s set 100 all' --at '20s cancel 0'

Exit codes: 0 fine, 1 a check failed, 2 an error, 4 a requirement is missing, 130 interrupted.";

#[derive(Parser)]
#[command(name = "dirtyrig", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Doctor(doctor::Args),
    Run(run::Args),
    Sweep(sweep::Args),
    Floor(floor::Args),
    Limit(limit::Args),
    Migrate(Box<migrate::Args>),
    Compare(compare::Args),
    Serve(serve::Args),
    Plot(plot::Args),
    Check(check::Args),
    Report(report::Args),
    Merge(merge::Args),
    Observe(observe::Args),
    Trace(trace::Args),
}

/// The whole command line, for what is made of it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs what the command line asks for. Usage errors, `--help` and `--version` end the process right here, and so does a
/// shell's question: `COMPLETE=bash dirtyrig` prints the script that asks them.
pub fn main() -> ExitCode {
    CompleteEnv::with_factory(command)
        .bin("dirtyrig")
        .completer("dirtyrig")
        .complete();
    exit::report(match Cli::parse().command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Limit(args) => limit::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Observe(args) => observe::run(&args),
        Command::Trace(args) => trace::run(&args),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        command().debug_assert();
    }
}
