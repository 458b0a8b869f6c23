#!/usr/bin/env bash
# Builds the images without a Docker daemon and runs one: the demo model answers the README's
# quickstart as nobody special on a read-only root, and SIGTERM lets a stream finish.
#
#   apt-get install --no-install-recommends buildah debootstrap
#   deploy/image-check.sh          builds both images and runs the CPU image
#   deploy/image-check.sh run      runs the CPU image that was built before
#
# Needs root, cargo (its tool chain is lent to the build stage), python3 with venv, node and npm.
# The bases are made by debootstrap; BASE_DIR and BUILD_DIR reuse folders made before. Everything
# is kept in target/image-check, so that the second run is quick. The image's own checks are those
# of `check_config` and below.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly ROOT=$PWD WORK=$PWD/target/image-check SUITE=bookworm
readonly MAX_CPU_BYTES=120000000
export BUILDAH_ISOLATION=chroot
readonly RUN_BASE=localhost/understudy-check/run BUILD_BASE=localhost/understudy-check/build
BUILDAH=(buildah --root "$WORK/storage" --runroot "$WORK/run")

say() { printf '== %s\n' "$*"; }
fail() { printf 'image-check: %s\n' "$*" >&2; exit 1; }

# A Debian base in a folder, without what images leave out.
make_base() { # folder, packages
    [ -e "$1/etc/debian_version" ] && return
    debootstrap --variant=minbase ${2:+--include="$2"} "$SUITE" "$1" >"$1.log" 2>&1 \
        || fail "debootstrap failed, see $1.log"
    find "$1/usr/share/doc" "$1/usr/share/man" "$1/usr/share/info" "$1/usr/share/locale" \
        "$1/var/cache/apt" "$1/var/lib/apt/lists" "$1/var/log" -mindepth 1 -delete
}

import_base() { # folder, image name, more configuration
    local container
    "${BUILDAH[@]}" images --quiet "$2" >/dev/null 2>&1 && return
    container=$("${BUILDAH[@]}" from scratch)
    "${BUILDAH[@]}" add --quiet "$container" "$1" / >/dev/null
    "${BUILDAH[@]}" config "${@:3}" "$container"
    "${BUILDAH[@]}" commit --quiet --rm "$container" "$2" >/dev/null
}

# The tool chain of this machine stands in for the one of the `rust` image. It is mounted at its
# own place, and the crates are those that are here already.
build() { # target
    local home=${CARGO_HOME:-$HOME/.cargo} sysroot
    sysroot=$(rustc --print sysroot)
    import_base "${BUILD_DIR:-$WORK/build-base}" "$BUILD_BASE" \
        --env "PATH=$sysroot/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        --env "CARGO_HOME=$home" --env CARGO_NET_OFFLINE=true
    import_base "${BASE_DIR:-$WORK/base}" "$RUN_BASE" --cmd bash
    "${BUILDAH[@]}" bud --format docker --layers --target "$1" \
        --build-arg "BUILD_BASE=$BUILD_BASE" --build-arg "RUN_BASE=$RUN_BASE" \
        --volume "$sysroot:$sysroot:ro" --volume "$home:$home" \
        --tag "localhost/understudy-check:$1" . >"$WORK/build-$1.log" 2>&1 \
        || { tail -20 "$WORK/build-$1.log" >&2; fail "the $1 image does not build"; }
}

inspect() { # image, template
    "${BUILDAH[@]}" inspect --type image --format "{{$2}}" "$1"
}

expect() { # what, expected, found
    [ "$2" = "$3" ] || fail "$1 is '$3', not '$2'"
}

check_config() { # target
    local image="localhost/understudy-check:$1" config
    config=.Docker.Config
    expect "$1: user" 10001:10001 "$(inspect "$image" "$config.User")"
    expect "$1: entry point" "[understudy]" "$(inspect "$image" "$config.Entrypoint")"
    expect "$1: command" "[serve --host 0.0.0.0]" "$(inspect "$image" "$config.Cmd")"
    expect "$1: stop signal" SIGTERM "$(inspect "$image" "$config.StopSignal")"
    expect "$1: health check" "[CMD understudy healthcheck]" \
        "$(inspect "$image" "$config.Healthcheck.Test")"
    expect "$1: volumes" "map[/models:{}]" "$(inspect "$image" "$config.Volumes")"
    expect "$1: NVIDIA settings" "$([ "$1" = gpu ] && echo 2 || echo 0)" \
        "$(inspect "$image" "$config.Env" | grep -o NVIDIA_ | wc -l)"
}

# Bytes of all files, as they lie in the layers.
size() { du --summarize --apparent-size --bytes --one-file-system "$1" | cut -f1; }

# Runs words in the image as its user, with its environment, a read-only root and /models.
in_image() { # root of the image, words
    local variables
    mapfile -t variables < <(inspect localhost/understudy-check:cpu 'range .Docker.Config.Env}}{{println .}}{{end' | grep =)
    # The last `exec` makes the process that is started here the server itself.
    # shellcheck disable=SC2016
    exec unshare --mount bash -c '
        root=$1 models=$2; shift 2
        mount --bind "$root" "$root"
        mount --bind "$models" "$root/models"
        mount -t proc proc "$root/proc"
        mount --bind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        exec chroot --userspec=10001:10001 "$root" env -i "$@"' \
        sh "$1" "$WORK/models" "${variables[@]}" "${@:2}"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

check_running() {
    local container root port server
    check_config cpu
    container=$("${BUILDAH[@]}" from localhost/understudy-check:cpu)
    root=$("${BUILDAH[@]}" mount "$container")
    port=$(free_port)
    say "size of the CPU image: $(size "$root") bytes, $(size "$root/usr/local/bin/understudy") of them the binary"
    [ "$(size "$root")" -lt "$MAX_CPU_BYTES" ] || fail "the CPU image is larger than $MAX_CPU_BYTES bytes"

    # The server's words are the image's, but for the port.
    (in_image "$root" understudy serve --host 0.0.0.0 --port "$port") >"$WORK/server.log" 2>&1 &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    for _ in $(seq 120); do
        (in_image "$root" understudy healthcheck --port "$port") 2>/dev/null && break
        kill -0 "$server" 2>/dev/null || { cat "$WORK/server.log" >&2; fail "the server ended"; }
        sleep 0.5
    done
    (in_image "$root" understudy healthcheck --port "$port") || fail "not healthy after a minute"
    say "healthy, as user $(awk '/^Uid/ {print $2}' "/proc/$server/status") on a read-only root"
    expect "user of the server" 10001 "$(awk '/^Uid/ {print $2}' "/proc/$server/status")"
    (in_image "$root" /bin/sh -c 'touch /usr/local/bin/x /tmp/x /x' 2>/dev/null) \
        && fail "the root file system can be written to"
    (in_image "$root" /bin/sh -c 'touch /models/written && rm /models/written') \
        || fail "/models cannot be written to"

    UNDERSTUDY_URL="http://127.0.0.1:$port" target/venv/bin/python -m pytest -q \
        --rootdir tests/sdk tests/sdk/test_readme.py
    check_drain "$port" "$server"
    trap - EXIT
    "${BUILDAH[@]}" umount "$container" >/dev/null
    "${BUILDAH[@]}" rm "$container" >/dev/null
}

# SIGTERM in the middle of a stream: it goes on to its end, then the server exits with 0.
check_drain() { # port, server
    local stream code=0
    curl --silent --no-buffer --max-time 60 "http://127.0.0.1:$1/v1/completions" \
        -H 'Content-Type: application/json' \
        -d '{"model": "SmolLM2-135M-Instruct", "prompt": "Once upon a time", "stream": true, "max_tokens": 200, "ignore_eos": true}' \
        >"$WORK/stream.txt" &
    stream=$!
    for _ in $(seq 100); do [ -s "$WORK/stream.txt" ] && break; sleep 0.1; done
    kill -TERM "$2"
    wait "$stream" || fail "the stream was cut off by SIGTERM"
    wait "$2" || code=$?
    grep -q '\[DONE\]' "$WORK/stream.txt" || fail "the stream has no end after SIGTERM"
    expect "exit code after SIGTERM" 0 "$code"
    say "SIGTERM: a stream of $(grep -c '^data: {' "$WORK/stream.txt") pieces finished, exit code 0"
}

prepare() {
    [ "$(id -u)" = 0 ] || fail "needs root, for chroot and mounts"
    for tool in buildah debootstrap cargo node npm python3 curl unshare; do
        command -v "$tool" >/dev/null || fail "needs $tool"
    done
    mkdir -p "$WORK/models/understudy"
    cargo fetch --locked --quiet
    make_base "${BASE_DIR:-$WORK/base}" ""
    make_base "${BUILD_DIR:-$WORK/build-base}" "gcc,libc6-dev"
    [ -x target/venv/bin/python ] || python3 -m venv target/venv
    target/venv/bin/python -m pip install --quiet --requirement tests/sdk/requirements.txt
    [ -d tests/sdk/node_modules ] || npm --prefix tests/sdk ci --no-audit --no-fund
    # The demo model, as a volume that has been used before.
    [ -x target/release/understudy ] || cargo build --release --quiet --bin understudy
    local model
    model=$(target/release/understudy fetch)
    mkdir -p "$WORK/models/understudy/models"
    cp --update "$model" "$WORK/models/understudy/models/"
    chown -R 10001:10001 "$WORK/models"
}

say "bases, demo model"
prepare
targets=(cpu gpu)
[ "${1:-}" = run ] && targets=()
for target in "${targets[@]}"; do
    say "building the $target image"
    build "$target"
    check_config "$target"
done
say "running the CPU image"
check_running
say "all checks of the images passed"
