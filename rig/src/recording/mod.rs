//! What a run leaves behind: a folder with a manifest, the samples, the summary of each finished cell, and the stalls.
//!
//! ```text
//! DIR/manifest.json   what ran, where, and which cells were planned
//! DIR/samples.csv     rates over time; rows of a cell come before its summary
//! DIR/stalls.hlog     histograms of the pauses, in HdrHistogram's log format
//! DIR/exits.csv       exits by reason, where the probes watched
//! DIR/summary.csv     the commit point: a cell is finished when one row for each of its vCPUs is here
//! ```
//!
//! A migration leaves a manifest, `passes.csv` and `migrations.csv`: see [`migrations`].
//!
//! Every file is only ever appended to, whole rows at a time, so that a crash leaves at most one torn last row. A row
//! counts when its line end is there. Rows of a cell that has no summary are leftovers: [`Recording`] keeps them apart
//! and [`Recorder::resume`] removes them.

mod dialect;
mod error;
mod journal;
mod manifest;
pub mod migrations;
mod reader;
pub mod schema;
mod stalls;
mod stand_ins;
mod table;
mod writer;

pub use error::RecordingError;
pub use manifest::{Manifest, Origin, RowCounts, State};
pub use reader::{Recording, Torn, ranges};
pub use stalls::{StallInterval, StallKind};
pub use table::summary_columns;
pub use writer::Recorder;

/// Describes the run; the first file to be written.
pub const MANIFEST: &str = "manifest.json";
/// One row per vCPU and sample.
pub const SAMPLES: &str = "samples.csv";
/// One row per vCPU and finished cell.
pub const SUMMARY: &str = "summary.csv";
/// One row per vCPU and reason of a cell that the probes watched.
pub const EXITS: &str = "exits.csv";
/// One line per vCPU, kind and interval.
pub const STALLS: &str = "stalls.hlog";

#[cfg(test)]
mod tests;
