//! Limits how fast a KVM guest dirties memory.
//!
//! A *law* ([`law`]) says how much a vCPU may dirty or how long it must sleep, an *enforcement* ([`enforce`]) makes that
//! happen on KVM ([`kvm`]), and [`machine::Machine`] puts both together with a VM, its vCPU threads and its dirty rings.
//! [`dirty_limit::DirtyLimit`] takes the commands: set, cancel, query. A VMM that runs its own vCPUs starts with
//! [`attach`].

pub mod attach;
pub mod clock;
pub mod control;
pub mod costs;
pub mod dirty_limit;
pub mod enforce;
mod governor;
pub mod kvm;
pub mod law;
pub mod limit;
mod limits;
pub mod machine;
pub mod rate;
mod reaper;
pub mod rings;
mod shared;
pub mod stats;
pub mod stop;
mod turns;
pub mod units;
mod vcpu_thread;
