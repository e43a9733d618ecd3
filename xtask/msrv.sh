#!/bin/sh
# Builds the library crates with the oldest Rust that they state (`rust-version`), which is Debian 12's. On Debian 12
# as root: the toolchain is unpacked into a folder and not installed. Five minutes.
#
#   xtask/msrv.sh [FOLDER]      default: ~/.cache/dirtyrig
set -eu

cd "$(dirname "$0")/.."
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/dirtyrig}
rust=$folder/rust-1.85
. xtask/apt.sh

if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" != bookworm ]; then
    echo "xtask/msrv.sh knows the packages of Debian 12 alone: give cargo 1.85 the build below yourself" >&2
    exit 4
fi

export LD_LIBRARY_PATH="$rust/usr/lib/x86_64-linux-gnu:$rust/lib/x86_64-linux-gnu"
if ! "$rust/usr/bin/cargo" --version >/dev/null 2>&1; then
    rm -rf "$rust"
    apt_unpack "$rust" libhttp-parser2.9 libcurl4 libssh2-1 libpcre3 libllvm19 \
        cargo-web/bookworm rustc-web/bookworm libstd-rust-web-dev/bookworm libstd-rust-web-1.85/bookworm
fi

# Neither rustup's toolchain nor its choice of it.
export PATH="$rust/usr/bin:/usr/bin:/bin" RUSTC="$rust/usr/bin/rustc" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/msrv"
cargo --version
libraries="-p dirtyrig-ring -p dirtyrig-limiter -p dirtyrig-machine -p dirtyrig-guests -p dirtyrig-probes-common"
# Unquoted on purpose: words.
cargo build --locked $libraries
