//! Dirty traces: which pages each vCPU dirtied when, in a file that can be replayed.
//!
//! ```text
//! file   head block*
//! head   "dirtytrc" | version u16 | length u32 | JSON of [`Head`] | CRC-32 of all before
//! block  kind u8 | length u32 | CRC-32 of kind, length and body u32 | body
//!
//! 'W'    thread u32 | vCPU u32 | writes u32 | first time u64 | length of the columns u32 | columns, LZ4
//! 'L'    push records lost so far u64
//! 'E'    JSON of [`Tail`]: the trace ended in good order
//! ```
//!
//! Integers are little endian; times are nanoseconds since the head's `started_ns`, which is on `CLOCK_MONOTONIC`; a
//! vCPU of `0xffff_ffff` is one that nothing has named. The columns of a block of n writes, all of one thread, are LEB128
//! numbers: n times, each since the one before (the first is 0); runs of (length, slot) that make n; n pages in their
//! slot, each the zigzag difference to the one before (the first to 0). A slot holds the address space in its high half.
//!
//! Blocks are whole or missing: a trace that was cut off is read up to there, and whoever reads it is told. A block
//! whose checksum differs is an error.

mod block;
mod columns;
mod error;
pub mod export;
mod outline;
mod pages;
mod reader;
mod replay;
mod writer;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use error::TraceError;
pub use outline::Outline;
pub use reader::{Reader, Record};
pub use replay::Replay;
pub use writer::Writer;

/// The first bytes of every trace.
const MAGIC: [u8; 8] = *b"dirtytrc";
/// Version of the format; raised when a reader of this one could not read the next.
const VERSION: u16 = 1;

/// One page that a vCPU dirtied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Nanoseconds since the trace began.
    pub at_ns: u64,
    /// Memory slot; the address space in the high half.
    pub slot: u32,
    /// Page in its slot.
    pub page: u64,
}

/// What was known when the trace began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of dirtyrig that recorded it.
    pub tool_version: String,
    /// The VMM's process.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// The vCPUs that it had open.
    pub vcpus: Vec<u32>,
    /// When the trace began, UTC.
    pub started_utc: String,
    /// The same on `CLOCK_MONOTONIC`.
    pub started_ns: u64,
}

/// What is known once the trace has ended in good order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The vCPUs that dirtied pages.
    pub vcpus: Vec<u32>,
    /// The slots in which they did, each with its highest page.
    pub slots: Vec<Slot>,
    /// Writes recorded.
    pub writes: u64,
    /// Writes that could not be recorded.
    pub lost: u64,
    /// When it ended.
    pub ended_ns: u64,
}

/// One memory slot of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number; the address space in the high half.
    pub slot: u32,
    /// Its highest page that was dirtied.
    pub highest_page: u64,
}
