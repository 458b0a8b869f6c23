# Sourced: packages of Debian, unpacked without being installed.

# fetch ROOT ARCHITECTURE PACKAGE...
fetch() {
    into=$1
    arch=$2
    shift 2
    lists=$into/lists-$arch
    mkdir -p "$lists/partial" "$into/packages-$arch"
    set -- -q -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$lists" -- "$@"
    # The options, up to the "--", serve both commands.
    options=
    while [ "$1" != -- ]; do
        options="$options $1"
        shift
    done
    shift
    # shellcheck disable=SC2086
    apt-get $options update
    # shellcheck disable=SC2086
    (cd "$into/packages-$arch" && apt-get $options download "$@")
    for package in "$into/packages-$arch"/*.deb; do
        dpkg -x "$package" "$into"
    done
}
