//! KVM as the limiter needs it: a VM with dirty rings, its memory, its vCPUs. All unsafe code of the limiter is here.
//!
//! | module | what it wraps |
//! |---|---|
//! | [`caps`] | what this host's KVM can do |
//! | [`vm`] | the VM's file descriptor: ring capability, memory slots, the reset ioctl |
//! | [`memory`] | guest memory, populated before anything is measured |
//! | [`ring`] | one vCPU's dirty ring: harvest and release |
//! | [`vcpu`] | one vCPU in long mode at CPL 3, and its exits |
//! | [`kick`] | how another thread, or a timer, makes a vCPU leave `KVM_RUN` |

pub mod caps;
mod error;
pub mod kick;
pub mod memory;
pub mod ring;
pub mod vcpu;
pub mod vm;

pub use error::Error;
