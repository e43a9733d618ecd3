#!/bin/sh
# A newcomer's walk: on a bare Debian 12 with nothing but Rust, git and a linker, in a clean clone of HEAD, the commands
# of README's Start, the install steps of the gate, and two steps of the gate that need what those installed. Needs
# root; the network is this machine's own package sources and crate registry. A quarter of an hour and 8 GB in /var/tmp,
# which are given back.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"
. "$here/bare-tree.sh"

# The part that runs in a mount namespace of its own.
if [ "${1:-}" = --in-namespace ]; then
    tree=$2
    bare_tree_mount "$tree"
    mount --bind -o ro "$(rustc --print sysroot)" "$tree/opt/rust"
    # Of this environment only where the network is reached, and whom to trust.
    set --
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_CERT SSL_CERT_FILE; do
        value=$(printenv "$name") && set -- "$@" "$name=$value"
    done
    exec chroot "$tree" /usr/bin/env -i HOME=/root LANG=C.UTF-8 CARGO_TERM_COLOR=never "$@" \
        PATH=/root/.cargo/bin:/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        bash -euo pipefail /root/walk
fi

cd "$here/.."
[ "$(id -u)" = 0 ] || { echo "xtask/fresh.sh makes a tree of devices and mounts: run it as root" >&2; exit 4; }
tree=$(mktemp -d /var/tmp/dirtyrig-fresh.XXXXXX)
trap 'bare_tree_remove "$tree"' EXIT
trap 'exit 130' INT TERM HUP

echo "== a bare Debian 12 in $tree"
bare_tree_make "$tree" bookworm ca-certificates,git,gcc,libc6-dev
mkdir -p "$tree/opt/rust" "$tree/root/.cargo"
registry=${CARGO_HOME:-$HOME/.cargo}/config.toml
[ ! -e "$registry" ] || cp "$registry" "$tree/root/.cargo/"
git clone --quiet --no-local . "$tree/root/dirtyrig"

# What README tells a newcomer to run, line by line.
start=$(sed -n '/^## Start/,/^## What/s/^\(cargo run[^#]*[^# ]\).*/\1/p' README.md)
[ "$(echo "$start" | wc -l)" -ge 2 ] || { echo "README.md's Start has no two lines of cargo run" >&2; exit 1; }
{
    cat <<'WALK'
cd /root/dirtyrig
step() { printf '\n== %s (after %s s)\n' "$*" "$SECONDS"; }
WALK
    echo "$start" | while read -r command; do
        printf 'step "%s"\n%s\n' "$command" "$command"
    done
    cat <<'WALK'
step ".ci/install"
.ci/install
step ".ci/install again, with everything there"
.ci/install
step "cargo xtask ebpf --check"
cargo xtask ebpf --check
step "cargo xtask kernels"
DIRTYRIG_REQUIRE=qemu cargo xtask kernels
step "walked to the end"
WALK
} >"$tree/root/walk"

unshare --mount --propagation private "$here/fresh.sh" --in-namespace "$tree"
