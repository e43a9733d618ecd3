//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.
pub mod analysis;
pub mod engine;
pub mod recording;
