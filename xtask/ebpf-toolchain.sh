#!/bin/sh
# Installs what builds the eBPF objects, on Debian or Ubuntu, as root; does nothing where it is there already.
#
# rustc-web is Debian's current Rust for web engines: the one packaged compiler that comes with a `core` for BPF. Its
# LLVM is a shared library, which bpf-linker links against, so that both use the same one. Half a GB, a minute.
set -eu

LINKER=0.13.0
LLVM=22
prefix=${CARGO_HOME:-$HOME/.cargo}/llvm$LLVM

. "$(dirname "$0")/apt.sh"
apt_install rustc-web libstd-rust-web-dev-bpf

if [ "$(bpf-linker --version 2>/dev/null)" != "bpf-linker $LINKER" ]; then
    # The linker's build looks for the development name, which only the much larger llvm-dev has.
    mkdir -p "$prefix/lib"
    ln -sf "/usr/lib/$(uname -m)-linux-gnu/libLLVM.so.$LLVM.1" "$prefix/lib/libLLVM.so"
    LLVM_PREFIX=$prefix cargo install bpf-linker --version "$LINKER" --locked --force \
        --no-default-features --features "llvm-$LLVM"
fi
