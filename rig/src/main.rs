//! Runs KVM guests under dirty-rate limiters and shows what the limiters did.
use std::process::ExitCode;

fn main() -> ExitCode {
    dirtyrig_rig::cli::main()
}
