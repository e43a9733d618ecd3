#!/bin/sh
# Gets two QEMUs for the tests and for comparisons, on Debian 12 as root: the one along PATH, and beside it the other of
# 7.2 (bookworm) and 10.0 (bookworm-backports), unpacked into a folder and not installed. Does nothing where they are
# there already. Prints the path of the unpacked one, for DIRTYRIG_QEMU or `--vmm qemu:PATH`; notes go to stderr.
#
#   xtask/qemu.sh [FOLDER]      default: ~/.cache/dirtyrig
set -eu

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/dirtyrig}
program=qemu-system-x86_64

version() { "$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'; }
. "$(dirname "$0")/apt.sh"

if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" != bookworm ]; then
    echo "xtask/qemu.sh knows the packages of Debian 12 alone: install $program, and unpack another version yourself" >&2
    exit 4
fi

command -v "$program" >/dev/null || apt_install qemu-system-x86 seabios

# What is not installed is unpacked.
if [ "$(version "$program")" -ge 8 ]; then
    suite=bookworm
    other=qemu-7.2
else
    suite=bookworm-backports
    other=qemu-10
fi
root=$folder/$other
binary=$root/usr/bin/$program

if [ -z "$(version "$binary")" ]; then
    apt_add_suite "$suite" bookworm
    rm -rf "$root"
    mkdir -p "$root"
    apt_unpack "$root" "qemu-system-x86/$suite" "qemu-system-common/$suite" "qemu-system-data/$suite"
    if [ -z "$(version "$binary")" ]; then
        echo "$binary does not start; what it lacks:" >&2
        ldd "$binary" | grep 'not found' >&2
        exit 4
    fi
fi
echo "$binary"
