//! What the vCPUs of a rig execute: small programs that write and read the pages of a region, each in its own pattern.
//! Through a page of memory the host steers them and reads what they truly did.
//!
//! - [`block`]: the page that host and guest share, one per vCPU: truth counters and parameters.
//! - [`Program`]: which pattern, with its parameters, as it is written on the command line.
//! - [`image`]: the guest's low memory, ready to be copied in: page tables, code, stacks, blocks.
//! - [`boot`]: the same low memory as an ELF image that QEMU boots.
//! - [`replay`]: the table that the `replay` program follows.
//!
//! Everything here is x86-64, needs no kernel in the guest, and runs at CPL 3: no exits, no interrupts, no system calls.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the guest programs are x86-64 machine code; build for an x86_64 target");

pub mod block;
pub mod boot;
pub mod image;
mod program;
mod programs;
pub mod replay;

pub use block::{Region, VcpuBlock};
pub use program::{Percent, Phase, Phases, PhasesError, Program, ProgramError};

/// Bytes in a page: what one write dirties.
pub const PAGE_SIZE: u64 = 4096;
