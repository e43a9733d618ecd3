//! A run, a limit, an observation or a migration as a timeline, in Perfetto's own format: a row for the pauses of each vCPU, another for
//! those that the kernel saw, and counters of rates and limits. <https://ui.perfetto.dev> opens it, as does its trace
//! processor.
//!
//! The file is a Perfetto `Trace`: packets one after the other, each written as soon as it is known, so that what was
//! written before a crash can be opened. Timestamps are nanoseconds since the first sample,
//! or since the start of the migration.

mod migration;
mod observed;
mod sink;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub use migration::Migrating;
pub use observed::Observed;
pub use sink::WithTimeline;
pub use writer::Timeline;
