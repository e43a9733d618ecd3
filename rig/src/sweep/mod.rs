//! Many cells, one recording.
//!
//! [`plan`] says which cells, in which order; [`main_job`] is the plan when nothing was asked for; [`estimate`] says how
//! long it will take; [`shard`] takes a share of it; [`execute`] runs it, while [`listen`] hears whether the machine is
//! quiet; [`merge`](mod@merge) puts shares together; [`findings`] says in words what came out.
//! [`floor_search`] is the search of `floor`; [`calibration`] measures what a vCPU does unlimited.

pub mod calibration;
pub mod estimate;
pub mod execute;
pub mod findings;
pub mod floor_search;
pub mod listen;
pub mod main_job;
pub mod merge;
pub mod plan;
pub mod shard;
