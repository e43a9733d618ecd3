#!/bin/sh
# Boots one of Debian's kernels under QEMU's software emulation with SVM, and runs a static program in it as a KVM host:
# there kvm_exit and kvm_entry fire, which nested kvm-pvm does not report. Needs qemu-system-x86_64 and apt's tools, no
# root: the packages are unpacked under CACHE. Half a minute a kernel, most of it the emulated boot.
#
# kernels.sh CACHE SUITE PROGRAM     SUITE: stable, or backports
set -eu
cache=$1 suite=$2 program=$3

case $suite in
    stable) wanted='$3 !~ /backports/' ;;
    backports) wanted='$3 ~ /backports/' ;;
    *) echo "no such suite: $suite (stable, backports)" >&2; exit 2 ;;
esac
# The newest linux-image-amd64 of the suite, and the package of the image that it depends on.
meta=$(apt-cache madison linux-image-amd64 | awk -F'|' "$wanted"' { gsub(/ /, "", $2); print $2; exit }')
[ -n "$meta" ] || { echo "apt knows no linux-image-amd64 of $suite: apt-get update, or add it to sources.list" >&2; exit 3; }
image=$(apt-cache show "linux-image-amd64=$meta" | sed -n 's/^Depends: \([^ ,]*\).*/\1/p' | head -1)

# Unpacks package $1 into folder $2 unless it is there.
unpack() {
    [ -e "$2/.unpacked" ] && return
    rm -rf "$2" && mkdir -p "$2"
    (cd "$2" && apt-get -o APT::Sandbox::User=root download -qq "$1" && dpkg -x ./*.deb . && rm -f ./*.deb && touch .unpacked) 1>&2
}
unpack "$image" "$cache/$image"
unpack busybox-static "$cache/busybox"
busybox=$cache/busybox/bin/busybox
[ -x "$busybox" ] || busybox=$cache/busybox/usr/bin/busybox

root=$cache/$image
version=$(ls "$root/lib/modules" 2>/dev/null || ls "$root/usr/lib/modules")
modules=$(find "$root" -type d -path "*/modules/$version/kernel")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/i/bin" "$work/i/proc" "$work/i/sys" "$work/i/dev" "$work/i/mod"
cp "$busybox" "$work/i/bin/busybox"
cp "$program" "$work/i/bin/program"
loads=
# In the order in which they need each other; what a kernel has built in has no file.
for module in irqbypass ccp kvm kvm-amd; do
    file=$(find "$modules" -name "$module.ko*" | head -1)
    [ -n "$file" ] || continue
    case $file in
        *.xz) "$busybox" xzcat "$file" > "$work/i/mod/$module.ko" ;;
        *) cp "$file" "$work/i/mod/$module.ko" ;;
    esac
    loads="$loads $module"
done
cat > "$work/i/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tracefs t /sys/kernel/tracing
for m in$loads; do insmod /mod/\$m.ko; done
echo "== Linux \$(uname -r)"
program
echo "exit status \$?"
poweroff -f
INIT
chmod +x "$work/i/init"
(cd "$work/i" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) > "$work/initrd"
kernel=$(find "$root" -name "vmlinuz-$version" | head -1)
timeout 300 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -machine q35 -m 2G -smp 2 -kernel "$kernel" \
    -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" -display none -serial stdio -no-reboot -monitor none \
    </dev/null | tr -d '\r' | sed -n '/^== Linux/,$p'
