//! Runs one cell: a target, a limiter, a script, and the sampler that records both.
pub mod target;
