//! Many cells, one recording.
//!
//! [`plan`] says which cells, in which order; [`main_job`] is the plan when nothing was asked for; [`estimate`] says how
//! long it will take; [`execute`] runs it; [`findings`] says in words what came out.

pub mod estimate;
pub mod execute;
pub mod findings;
pub mod main_job;
pub mod plan;
