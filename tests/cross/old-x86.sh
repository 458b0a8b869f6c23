#!/bin/sh
# Runs the kernels' tests on an x86-64 processor without AVX, emulated by qemu (Debian 12).
#
#   tests/cross/old-x86.sh [arguments of cargo test ...]
#
# The emulator comes from Debian and is unpacked under target/cross; nothing is installed.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$here/tests/cross/debian.sh"

root=$here/target/cross/x86
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    fetch "$root" amd64 qemu-user-static
    touch "$root/complete"
fi
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$root/usr/bin/qemu-x86_64-static -cpu Nehalem"
[ $# -gt 0 ] || set -- --lib --test attention --test linear --test rows --test experts --test low_rank
cd "$here"
exec cargo test --release --locked --target x86_64-unknown-linux-gnu -p kernels "$@"
