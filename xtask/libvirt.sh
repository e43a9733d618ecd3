#!/bin/sh
# libvirt for the trials, on Debian 12 as root.
#
#   xtask/libvirt.sh               installs its packages, those that are not there yet
#   xtask/libvirt.sh run FOLDER    a daemon in the foreground that has all its files, its configuration and its socket below
#                                  FOLDER: run/libvirt/libvirt-sock. Its process id is in FOLDER/pid; SIGTERM ends it. Destroy its domains first:
#                                  they outlive it. Whatever libvirt this host has is neither used nor changed.
set -eu

if [ "${1:-}" != run ]; then
    cd "$(dirname "$0")"
    . ./apt.sh
    apt_install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    exit 0
fi

folder=$(realpath "$2")
mkdir -p "$folder/etc/libvirt"
cat >"$folder/etc/libvirt/qemu.conf" <<CONF
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = [ ]
dynamic_ownership = 0
remember_owner = 0
CONF
# A mount namespace of its own: the paths that are built into the daemon lead below the folder, for it alone.
exec unshare --mount --propagation private sh -c '
    set -eu
    folder=$1
    for below in run/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt etc/libvirt; do
        mkdir -p "$folder/$below" "/$below"
        mount --bind "$folder/$below" "/$below"
    done
    # Users that the daemon wants to know, which the package of the service would make.
    if ! getent passwd libvirt-qemu >/dev/null; then
        { cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"; } >"$folder/passwd"
        mount --bind "$folder/passwd" /etc/passwd
    fi
    cp /etc/group "$folder/group"
    getent group libvirt-qemu >/dev/null || echo "libvirt-qemu:x:64055:" >>"$folder/group"
    getent group kvm >/dev/null || echo "kvm:x:64056:" >>"$folder/group"
    mount --bind "$folder/group" /etc/group
    exec libvirtd --pid-file "$folder/pid"
' sh "$folder"
