//! The subcommands, one a file.

pub mod check;
pub mod doctor;
pub mod floor;
pub mod plot;
mod progress;
mod results;
pub mod run;
pub mod sweep;
mod table;
