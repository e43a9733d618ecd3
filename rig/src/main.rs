//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.
fn main() {}
