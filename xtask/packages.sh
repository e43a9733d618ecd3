#!/bin/sh
# Installs the Debian packages that the tests and the chores call, on Debian 12 as root, and makes apt know the suites
# from which `xtask/qemu.sh` and `xtask/kernels.sh` fetch. A package per line, with what calls it.
set -eu
cd "$(dirname "$0")"
. ./apt.sh

# Always: the lists name the files that are fetched later, and old lists name files that are gone.
apt_refresh
apt_add_suite bookworm-backports bookworm

# The trials with a real QEMU, the emulated kernels. By itself: on a machine with other parts of QEMU it comes from the
# suite that they came from.
apt_install qemu-system-x86 seabios

set -- gcc libc6-dev                   # the linker that rustc calls
set -- "$@" git                        # the revision that a build records
set -- "$@" python3-venv               # QEMU's QMP client
set -- "$@" chromium                   # the trials of the report
apt_install "$@"
