//! Control laws: pure functions of what was measured. No clock, no thread, no I/O.
//!
//! A *law* says how much a vCPU may dirty or how long it must sleep; an *enforcement* makes that happen on KVM; a
//! *limiter* ([`LimiterKind`]) is a named pair of the two. Time comes in as an argument: a [`std::time::Duration`]
//! since an epoch of the caller's choice.
//!
//! | law | decides | when |
//! |---|---|---|
//! | [`qemu_v11`], [`qemu_7_2`], [`qemu_10`] | the sleep after each ring-full exit | once a period, from a reading |
//! | [`ring_sleep`] | the sleep after a ring-full exit | at that exit, from the pages that came out |
//! | [`auto_converge`] | the share of time every vCPU sleeps | once a period, from a reading |
//! | [`dirty_quota`] | pages for each interval of 10 ms | whenever pages are charged |
//! | [`budget`], [`share`], [`accounts`] of both | pages until the next pause, and its length | whenever pages are charged |
//! | [`pace`] | how long a vCPU may run unobserved | before each entry |
//! | [`interim`] | when a vCPU that takes long over its grant is charged on its way | before each entry |
//! | [`migration`] | the quota that keeps what was promised of a live migration | before it, and after each pass |

pub mod accounts;
pub mod auto_converge;
pub mod budget;
pub mod depth;
mod descriptor;
pub mod dirty_quota;
pub mod full_ring;
pub mod interim;
mod kind;
pub mod migration;
pub mod pace;
mod page_accounts;
pub mod periodic;
mod qemu;
pub mod qemu_10;
pub mod qemu_7_2;
pub mod qemu_v11;
pub mod ring_sleep;
pub mod share;
#[cfg(test)]
mod sim;
mod tokens;

pub use descriptor::Bounds;
pub(crate) use descriptor::{Enforced, Law};
pub use kind::{LimiterKind, UnknownLimiter};
pub(crate) use page_accounts::PageAccounts;
