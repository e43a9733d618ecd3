//! What samples mean: pure functions, no clock, no file. The same samples always give the same summary, so a recording
//! can be judged again later.
//!
//! The rates over time are first averaged under [`windows`]; [`settle`] finds where they became steady, [`steady`] says how
//! steady, [`verdict`] says why there, and [`summarize`](mod@summarize) puts a cell's row together.

mod parts;
mod pauses;
pub mod probed;
pub mod settle;
mod spread;
pub mod stats;
pub mod steady;
pub mod summarize;
mod together;
pub mod trust;
mod untold;
pub mod verdict;
pub mod windows;

pub use probed::add_probes;
pub use settle::{Drift, Moving, Settling, State};
pub use summarize::{CellFacts, summarize};
pub use trust::trust;
pub use untold::logged_rate;
pub use verdict::{Basis, Evidence, Judgement, is_at_quota, judge};
