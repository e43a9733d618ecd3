//! Chores for maintainers: `cargo xtask CHORE`.

#![forbid(unsafe_code)]

mod dist;
mod ebpf;
mod kernels;
mod words;

use clap::{Parser, Subcommand};

/// Chores for maintainers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build what users install: one static binary with its documents, as a tarball, a .deb and an .rpm
    Dist(dist::Arguments),
    /// Rebuild the eBPF objects in probes/prebuilt from probes/ebpf
    Ebpf(ebpf::Arguments),
    /// Check the probes on kernels of Debian's, booted under QEMU's software emulation
    Kernels(kernels::Arguments),
    /// List sentences of more than 30 words, and "a" where "per" is meant, in the documentation
    Words(words::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Dist(arguments) => dist::run(&arguments),
        Chore::Ebpf(arguments) => ebpf::run(&arguments),
        Chore::Kernels(arguments) => kernels::run(&arguments),
        Chore::Words(arguments) => words::run(&arguments),
    }
}
