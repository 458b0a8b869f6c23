# Sourced: packages of Debian, unpacked without being installed.

# mirror: where this machine gets Debian from.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | sed -n 's/ bookworm$//p' | head -n 1
}

# fetch ROOT ARCHITECTURE PACKAGE...: of the suite that $suite names, or else of this machine's.
fetch() {
    into=$1
    arch=$2
    shift 2
    lists=$into/lists-$arch${suite:+-$suite}
    packages=$into/packages-$arch${suite:+-$suite}
    mkdir -p "$lists/partial" "$packages"
    options="-q -q -o APT::Architecture=$arch -o APT::Architectures=$arch -o APT::Sandbox::User=root
        -o Dir::State::Lists=$lists"
    if [ -n "${suite-}" ]; then
        key=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$key] $(mirror) $suite main" >"$into/$suite.list"
        options="$options -o Dir::Etc::SourceList=$into/$suite.list -o Dir::Etc::SourceParts=/dev/null"
    fi
    # shellcheck disable=SC2086
    apt-get $options update
    # shellcheck disable=SC2086
    (cd "$packages" && apt-get $options download "$@")
    for package in "$packages"/*.deb; do
        dpkg -x "$package" "$into"
    done
}
