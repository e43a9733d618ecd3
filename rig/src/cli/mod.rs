//! The command line.
pub mod exit;
pub mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::doctor;

/// Runs KVM guests under dirty-rate limiters and shows what the limiters did.
#[derive(Parser)]
#[command(name = "dirtyrig", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Doctor(doctor::Args),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    exit::report(match Cli::parse().command {
        Command::Doctor(args) => doctor::run(&args),
    })
}
