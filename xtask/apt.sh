# Debian's packages, for the scripts beside this one, which source it. What apt says goes to stderr.

apt_lists_are_new=

# Reads the package lists anew, once per script.
apt_refresh() {
    [ -n "$apt_lists_are_new" ] || apt-get update -qq >&2
    apt_lists_are_new=yes
}

# Installs those of the packages that are not installed yet.
apt_install() {
    lacking=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || lacking="$lacking $package"
    done
    [ -n "$lacking" ] || return 0
    apt_refresh
    # Where something newer is installed already (a qemu-utils from backports), its siblings have to come from there too.
    # Unquoted on purpose: one word per package.
    if apt-get install -s --no-install-recommends $lacking >/dev/null 2>&1; then
        release=
    else
        release="-t $(. /etc/os-release && echo "$VERSION_CODENAME")-backports"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $release $lacking >&2
}

# The mirror of suite $1 in this machine's own sources, whichever of apt's two formats they are in; and the keyring, if
# they name one.
apt_mirror() {
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI) $(SIGNED_BY)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "main" { print $3, $4 ~ /^\// ? $4 : ""; exit }'
}

# Makes apt know suite $1, a sibling of suite $2 that it knows: from the same mirror, signed by the same keys.
apt_add_suite() {
    [ -z "$(apt_mirror "$1")" ] || return 0
    mirror=$(apt_mirror "$2")
    if [ -z "$mirror" ]; then
        echo "apt has no source of $2, whose mirror would have $1: add one to /etc/apt/sources.list" >&2
        return 4
    fi
    keyring=${mirror#* }
    echo "deb ${keyring:+[signed-by=$keyring] }${mirror%% *} $1 main" >"/etc/apt/sources.list.d/dirtyrig-$1.list"
    apt_lists_are_new=
    apt_refresh
}

# Downloads packages (NAME, or NAME/SUITE) and unpacks them into folder $1, installing nothing.
apt_unpack() {
    folder=$1
    shift
    apt_refresh
    mkdir -p "$folder/packages"
    # As root in any folder, which apt's own user may not enter.
    (cd "$folder/packages" && apt-get -o APT::Sandbox::User=root download -qq "$@" >&2)
    for file in "$folder"/packages/*.deb; do
        dpkg -x "$file" "$folder"
    done
    rm -rf "$folder/packages"
}
