//! Limits how fast a KVM guest dirties memory.
pub mod law;
pub mod limit;
pub mod rate;
pub mod units;
