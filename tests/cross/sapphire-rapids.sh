#!/bin/sh
# Runs the kernels' tests on an x86-64 processor with AVX-512 (VNNI, BF16) and AMX, emulated by
# Bochs (Debian 12).
#
#   tests/cross/sapphire-rapids.sh [arguments of cargo test ...]
#
# qemu has neither AVX-512 nor AMX. Bochs has, but emulates a whole machine: each test executable
# boots a Linux of its own (tests/cross/bochs/run.sh). Boot medium and firmware come from Debian 12;
# the kernel and Bochs' source from Debian 13. Bochs is built here, with a change of ours, without
# which Linux gives nobody AMX (tests/cross/bochs/bochs-3.0.patch); that takes g++, make and a few
# minutes. All is kept under target/cross; nothing is installed.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$here/tests/cross/debian.sh"

root=$here/target/cross/sapphire-rapids
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    fetch "$root" amd64 genisoimage isolinux syslinux-common busybox-static bochsbios vgabios
    # The kernel that the package of this name stands for today.
    suite=trixie
    fetch "$root" amd64 '?reverse-depends(?exact-name(linux-image-cloud-amd64))'
    /usr/lib/apt/apt-helper download-file \
        "$(mirror)pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz" "$root/bochs.tar.xz" \
        SHA256:78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
    tar -C "$root" -xf "$root/bochs.tar.xz"
    mv "$root/bochs-3.0" "$root/bochs"
    patch -d "$root/bochs" -p1 <"$here/tests/cross/bochs/bochs-3.0.patch"
    (
        cd "$root/bochs"
        ./configure --with-nogui --disable-docbook --disable-show-ips --enable-all-optimizations \
            --enable-cpu-level=6 --enable-x86-64 --enable-avx --enable-evex --enable-amx \
            CFLAGS=-O2 CXXFLAGS=-O2
        make -j"$(nproc)"
    ) >"$root/build.log" 2>&1
    touch "$root/complete"
fi
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$here/tests/cross/bochs/run.sh"
# The two longest tests of attention take more than five minutes each: name them to run them.
[ $# -gt 0 ] || set -- --lib --test attention --test linear --test rows --test experts --test low_rank \
    -- --skip chunks_and_company_do_not_change_bits --skip long_contexts_are_put_together_alike
cd "$here"
exec cargo test --release --locked --target x86_64-unknown-linux-gnu -p kernels "$@"
