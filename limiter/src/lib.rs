//! Limits how fast a KVM guest dirties memory.
//!
//! A VMM that runs its own vCPUs starts with [`attach`]: it hands in its VM, calls
//! [`LimitedVcpu::run`](attach::LimitedVcpu::run) in place of `VcpuFd::run`, and sets limits by
//! [`dirty_limit::DirtyLimit`]: set, cancel, query. The dirty rings themselves are [`dirtyrig_ring`]'s.
//!
//! Behind that way in, a *law* ([`law`]) says how much a vCPU may dirty or how long it must sleep. An *enforcement*
//! makes that happen between two runs of the vCPU. A *limiter* ([`law::LimiterKind`]) is a named pair of the two.

// Of a library, unlike the workspace: whoever calls it asks first what can go wrong.
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod attach;
mod clock;
mod control;
pub mod costs;
pub mod dirty_limit;
mod enforce;
mod error;
mod exit;
mod governor;
mod kvm;
pub mod law;
pub mod limit;
mod limits;
pub mod rate;
mod reaper;
mod rings;
mod shared;
mod spec;
pub mod stats;
mod stop;
mod turns;
pub mod units;

pub use control::Phase;
pub use enforce::page_budget::PageCounter;
pub use error::Error;
pub use kvm::kick::KickSignal;
pub use rings::DirtySink;
pub use spec::LimiterSpec;
