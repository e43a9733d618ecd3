# A bare Debian tree, and a shell in it, for the scripts beside this one, which source it after apt.sh. Needs root.
# Whatever the caller starts is in a mount namespace of its own, so that no mount outlives it, however it ends.

# Makes a bare tree of Debian release $2 in folder $1, with further packages $3 (separated by commas, may be empty), from this
# machine's own mirror. Half a minute.
bare_tree_make() {
    apt_install debootstrap
    mirror=$(apt_mirror "$2")
    # Most mirrors have every release, whichever one this machine runs.
    mirror=${mirror:-$(apt_mirror bookworm)}
    if [ -z "$mirror" ]; then
        echo "apt has no source of Debian's main on this machine, from which a bare tree could be made" >&2
        return 4
    fi
    # It mounts /proc in the tree, and leaves it there when it is killed.
    unshare --mount --propagation private \
        debootstrap --variant=minbase ${3:+--include="$3"} "$2" "$1" "${mirror%% *}" >"$1.log" 2>&1 || {
        tail -20 "$1.log" >&2
        return 1
    }
    rm -f "$1.log"
    # No service of a package starts here.
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod +x "$1/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    # The release's updates and security fixes, as a machine that was installed has them.
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$2" '$1 == release "-updates" || $1 == release "-security" { print "deb", $3, $1, $2 }' |
        sort -u >>"$1/etc/apt/sources.list"
    # Whom this machine trusts, beyond what Debian does.
    if [ -d /usr/local/share/ca-certificates ] && [ -d "$1/etc/ssl/certs" ]; then
        cp -r /usr/local/share/ca-certificates "$1/usr/local/share/"
        chroot "$1" update-ca-certificates >/dev/null 2>&1
    fi
}

# Mounts in tree $1 what a machine has: processes, devices with /dev/kvm, what the kernel shows. Only in a mount
# namespace of one's own, which takes the mounts with it.
bare_tree_mount() {
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount -t tmpfs tmpfs "$1/run"
}

# Ends what still runs in tree $1, and removes the tree.
bare_tree_remove() {
    case $1 in /?*/?*) ;; *) echo "not a tree to remove: $1" >&2; return 1 ;; esac
    for root in /proc/[0-9]*/root; do
        case $(readlink "$root" 2>/dev/null) in
            "$1" | "$1"/*) process=${root%/root}; kill -KILL "${process#/proc/}" 2>/dev/null || true ;;
        esac
    done
    rm -rf --one-file-system "$1" "$1.log"
}
