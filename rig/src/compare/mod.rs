//! The same scenario under several limiters: what each of them did after every change of its limit.
//!
//! A cell is cut into **phases**, which begin where a limit changes ([`phase`]). Each is judged by itself ([`judge`]), and
//! the repetitions of a limiter are put together as medians with their range ([`rows`]). All of it comes from a recording
//! alone; [`plan`] says what is run for one.

mod judge;
mod phase;
pub mod plan;
mod rows;
mod table;

pub use judge::Judged;
pub use rows::{Row, judged, rows};
pub use table::{Style, table};
