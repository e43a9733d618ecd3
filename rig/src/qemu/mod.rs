//! Real QEMU as a VMM: found, started with our own guest or attached to as it runs, limited through its monitor.
//!
//! - [`choice`]: which QEMUs a command line names, before anything runs.
//! - [`ability`]: what of a scenario a QEMU can do.
//! - [`binary`], [`version`]: which QEMU it is, and which of our laws it has.
//! - [`process`], [`memory`]: a QEMU of ours, and the memory in which its guest keeps its counters.
//! - [`running`]: a QEMU of somebody else's.
//! - [`limits`]: sets and reads its limits; [`watch`]: sees its vCPU threads from outside.
//! - [`target`]: all of it as what the engine runs.

pub mod ability;
pub mod binary;
pub mod choice;
pub mod error;
mod held;
pub mod limits;
pub mod memory;
pub mod process;
pub mod running;
pub mod target;
pub mod version;
pub mod watch;
