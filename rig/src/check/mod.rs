//! Did it get worse? A recording against a baseline, cell by cell and metric by metric.
//!
//! ```text
//! baseline ──┐ differences: may they      compare ─▶ a verdict a cell and metric
//! candidate ─┘ be compared at all?   ─▶   │ bootstrap  interval of the change of medians
//!                                         │ rank       test over repetitions
//!                                         │ correct    for how many tests there are
//!                                         └ power      how many repetitions it would take
//! ```
//!
//! [`baselines`] keeps recordings under names; [`output`] prints the outcome for people and for machines.

pub mod baselines;
pub mod bootstrap;
pub mod cell;
pub mod compare;
pub mod correct;
pub mod differences;
pub mod metric;
pub mod outcome;
pub mod output;
pub mod power;
pub mod rank;

pub use compare::{ALPHA, Comparison, Verdict, compare};
pub use outcome::{Baseline, CheckError, Outcome};
