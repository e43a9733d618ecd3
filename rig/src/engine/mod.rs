//! Runs one cell: a target, a limiter, a script, and the sampler that records both.

pub mod cell;
pub mod facts;
pub mod interrupt;
mod join;
pub mod limits;
mod measured;
pub mod own_vm;
mod page_counter;
pub mod probing;
pub mod replay_tables;
mod sampler;
#[cfg(test)]
pub mod simulated;
pub mod sink;
pub mod target;

/// The run was ended by ctrl-c or SIGTERM before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
