//! The subcommands, one per file, and what they share: flags, notes, exit codes.

pub mod check;
pub mod compare;
pub mod complete;
pub mod doctor;
pub mod exit;
pub mod flags;
pub mod floor;
pub mod limit;
pub mod merge;
pub mod migrate;
pub mod observe;
pub mod output;
pub mod plot;
mod probes;
mod progress;
mod rates;
pub mod report;
mod results;
pub mod run;
pub mod serve;
pub mod sweep;
mod table;
pub mod trace;
mod which_vm;
