//! The subcommands, one per file.

pub mod check;
pub mod compare;
pub mod doctor;
pub mod floor;
pub mod limit;
pub mod merge;
pub mod migrate;
pub mod observe;
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
