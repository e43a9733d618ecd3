//! Watches VMs of any VMM from inside the kernel, as they run, and tells what it sees in several ways at once.
//!
//! ```text
//! probes ──▶ watched ──events──▶ trace
//!               │  └────stalls──▶ record
//!               └──counters──▶ rates ──▶ view | lines
//!                        └──▶ record, metrics
//! ```
//!
//! - [`watched`]: the probes of the processes asked for, drained and read.
//! - [`processes`]: what `/proc` says of a VMM.
//! - [`rates`]: what each vCPU did between two readings; pure.
//! - [`outlet`]: what everything that shows or keeps readings has in common.
//! - [`lines`], [`view`], [`record`], [`metrics`], [`tracing`]: one outlet each.
//! - [`session`]: the loop.

pub mod lines;
pub mod metrics;
mod names;
pub mod outlet;
pub mod processes;
pub mod rates;
pub mod record;
pub mod session;
mod stdout;
pub mod tracing;
pub mod view;
pub mod watched;
