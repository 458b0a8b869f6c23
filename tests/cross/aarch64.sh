#!/bin/sh
# Runs the kernels' tests on aarch64, emulated by qemu, on an x86-64 Debian 12 machine.
#
#   tests/cross/aarch64.sh [arguments of cargo test ...]
#
# Tool chain, C library, linker and emulator come from Debian and are unpacked under
# target/cross; nothing is installed. Rust's standard library for arm64 is Debian's, so the
# compiler is Debian's too.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$here/tests/cross/debian.sh"

root=$here/target/cross/aarch64
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    fetch "$root" amd64 rustc-web libstd-rust-web-1.96 libstd-rust-web-dev libllvm22 \
        qemu-user-static gcc-aarch64-linux-gnu gcc-12-aarch64-linux-gnu \
        gcc-12-aarch64-linux-gnu-base cpp-12-aarch64-linux-gnu libgcc-12-dev-arm64-cross \
        libgcc-s1-arm64-cross libc6-arm64-cross libc6-dev-arm64-cross linux-libc-dev-arm64-cross \
        binutils-aarch64-linux-gnu libgomp1-arm64-cross libisl23 libmpc3 libmpfr6 libbinutils \
        libctf-nobfd0 libctf0 libgprofng0 libjansson4
    fetch "$root" arm64 libstd-rust-web-dev
    touch "$root/complete"
fi

cat >"$root/rustc" <<WRAPPER
#!/bin/sh
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
exec $root/usr/bin/rustc "\$@"
WRAPPER
cat >"$root/cc" <<WRAPPER
#!/bin/sh
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
export PATH=$root/usr/bin:\$PATH
# The linker scripts of libc name files below /usr/aarch64-linux-gnu.
exec $root/usr/bin/aarch64-linux-gnu-gcc-12 --sysroot=$root -B$root/usr/bin/aarch64-linux-gnu- \\
    -B$root/usr/lib/gcc-cross/aarch64-linux-gnu/12 -L$root/usr/aarch64-linux-gnu/lib "\$@"
WRAPPER
chmod +x "$root/rustc" "$root/cc"

export RUSTC="$root/rustc"
export RUSTC_WRAPPER=
export CARGO_TARGET_DIR="$here/target/cross/build"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$root/cc"
export CC_aarch64_unknown_linux_gnu="$root/cc"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$root/usr/bin/qemu-aarch64-static -L $root/usr/aarch64-linux-gnu -cpu max"
[ $# -gt 0 ] || set -- --lib --test attention --test linear --test rows --test experts --test low_rank
cd "$here"
exec cargo test --release --locked --target aarch64-unknown-linux-gnu -p kernels "$@"
