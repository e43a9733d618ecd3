//! Writes the man pages of `dirtyrig` and of each subcommand into a folder: `dirtyrig-man DIR`.

#![forbid(unsafe_code)]

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: dirtyrig-man DIR"))?;
    clap_mangen::generate_to(dirtyrig_rig::cli::command(), folder)
}
