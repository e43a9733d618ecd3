//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.

// A program's documentation is for those who work on it.
#![allow(rustdoc::private_intra_doc_links)]

pub mod analysis;
pub mod check;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod engine;
pub mod machine;
pub mod migrate;
pub mod model;
pub mod observe;
pub mod outside;
pub mod plot;
pub mod qemu;
pub mod qmp;
pub mod recording;
pub mod report;
pub mod scenario;
pub mod session;
pub mod stdout;
pub mod sweep;
pub mod timeline;
pub mod trace;
