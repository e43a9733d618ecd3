//! Real QEMU as a VMM: found, started with our own guest or attached to as it runs, limited through its monitor.
//!
//! - [`binary`]: which QEMU, and whether it can do what is asked.
//! - [`version`]: which of our laws is the one that a version has.
//! - [`process`]: a QEMU of ours, from its start to its end.
//! - [`memory`]: the guest's memory, in which it keeps its counters.

pub mod binary;
pub mod error;
pub mod memory;
pub mod process;
pub mod version;
