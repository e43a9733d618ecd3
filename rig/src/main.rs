//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.
mod engine;
mod recording;
fn main() {}
