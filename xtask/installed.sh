#!/bin/sh
# The packages of `cargo xtask dist` where users install them: the .deb in a bare Debian 12 and a bare Debian 11, the
# .rpm in another bare tree, and the tarball's binary in a folder that holds nothing else. In each, `doctor`, `run`,
# `observe` and `limit`. Needs root, KVM and eBPF; three minutes.
#
#   xtask/installed.sh [FOLDER]      where the packages are; default: target/dist
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
. "$here/bare-tree.sh"

fail() {
    echo "$1:" >&2
    cat "$2" >&2
    exit 1
}

# What the binary $2 does in tree $1.
try() {
    tree=$1 binary=$2
    log=$tree/tmp/log
    inside() { chroot "$tree" "$binary" "$@" >"$log" 2>&1; }
    inside --version || fail "no version" "$log"
    cat "$log"
    inside doctor || fail "doctor finds it not ready" "$log"
    grep -q '^ok .* probes ' "$log" || fail "doctor finds no probes" "$log"
    inside run --probes require --quota 50 --ring 1024 --duration 2s --warm-up 100ms --out /tmp/run || fail "run" "$log"
    [ -s "$tree/tmp/run/summary.csv" ] || fail "run recorded nothing" "$log"
    # A VM for the other two.
    chroot "$tree" "$binary" run --limiter none --probes off --ring 1024 --duration 1h --out /tmp/vm >"$tree/tmp/vm.log" 2>&1 &
    vm=$!
    waited=0
    until ls -l "/proc/$vm/fd" 2>/dev/null | grep -q kvm-vcpu; do
        sleep 0.1
        waited=$((waited + 1))
        [ "$waited" -lt 300 ] || fail "the VM did not start in half a minute" "$tree/tmp/vm.log"
    done
    inside observe --pid "$vm" --csv --duration 2s --interval 500ms || fail "observe" "$log"
    grep -q ",$vm," "$log" || fail "observe has no line of process $vm" "$log"
    inside limit --pid "$vm" --quota 20 --duration 3s --out /tmp/limit || fail "limit" "$log"
    grep -q 'runs free again' "$log" || fail "limit did not set the VM free" "$log"
    kill -INT "$vm"
    wait "$vm" || true
    echo "doctor, run, observe and limit work"
}

if [ "${1:-}" = --in-namespace ]; then
    what=$2 tree=$3 package=$4
    mkdir -p "$tree/proc" "$tree/sys" "$tree/dev" "$tree/run" "$tree/tmp"
    bare_tree_mount "$tree"
    case $what in
        deb)
            cp "$package" "$tree/tmp/package.deb"
            chroot "$tree" dpkg -i /tmp/package.deb
            try "$tree" /usr/bin/dirtyrig
            chroot "$tree" dpkg -r dirtyrig
            ;;
        rpm)
            rpm --root "$tree" --force-debian -i "$package"
            rpm --root "$tree" --force-debian -V dirtyrig
            try "$tree" /usr/bin/dirtyrig
            rpm --root "$tree" --force-debian -e dirtyrig
            ;;
        tarball)
            tar -xzf "$package" -C "$tree" --strip-components 1 --wildcards '*/dirtyrig'
            try "$tree" /dirtyrig
            exit
            ;;
    esac
    [ ! -e "$tree/usr/bin/dirtyrig" ] || { echo "the $what left its binary behind" >&2; exit 1; }
    exit
fi

cd "$here/.."
[ "$(id -u)" = 0 ] || { echo "xtask/installed.sh makes trees of devices and mounts: run it as root" >&2; exit 4; }
packages=$(cd "${1:-target/dist}" && pwd)
apt_install rpm
tree=
trap '[ -z "$tree" ] || bare_tree_remove "$tree"' EXIT
trap 'exit 130' INT TERM HUP

# Makes a tree, of Debian release $2 or empty, and tries the only package that ends in $3 in it.
walk() {
    echo "== $1, $2"
    tree=$(mktemp -d /var/tmp/dirtyrig-installed.XXXXXX)
    [ "$2" = empty ] || bare_tree_make "$tree" "$2" ""
    unshare --mount --propagation private "$here/installed.sh" --in-namespace "$1" "$tree" "$packages"/*"$3"
    bare_tree_remove "$tree"
    tree=
}
walk deb bookworm .deb
walk deb bullseye .deb
walk rpm bookworm .rpm
walk tarball empty .tar.gz
