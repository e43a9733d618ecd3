#!/bin/sh
# Gets Prometheus and promtool for the trials of what packaging/ has for them, from Debian's package: unpacked, not
# installed, for that would start a server. Does nothing where they are there. Prints the folder of the programs.
#
#   xtask/prometheus.sh [FOLDER]      default: ~/.cache/dirtyrig
set -eu
. "$(dirname "$0")/apt.sh"

root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/dirtyrig}/prometheus
if ! "$root/usr/bin/promtool" --version >/dev/null 2>&1; then
    rm -rf "$root"
    mkdir -p "$root"
    apt_unpack "$root" prometheus
fi
echo "$root/usr/bin"
