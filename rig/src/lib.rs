//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.
pub mod analysis;
pub mod check;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod engine;
pub mod machine;
pub mod observe;
pub mod outside;
pub mod plot;
pub mod qemu;
pub mod qmp;
pub mod recording;
pub mod report;
pub mod scenario;
pub mod sweep;
pub mod trace;
