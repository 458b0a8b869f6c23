#!/bin/sh
# Boots Linux on an emulated Sapphire Rapids to run one program, and ends with its exit status.
#
#   tests/cross/bochs/run.sh EXECUTABLE [ARGUMENTS ...]
#
# tests/cross/sapphire-rapids.sh makes the emulator and names this script to cargo. The machine has
# one processor and 2 GiB of memory; the program finds its libraries there and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../../target/cross/sapphire-rapids
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The root directory of Linux, in memory.
mkdir -p "$work/root/bin" "$work/root/lib64" "$work/medium"
cp "$here/init" "$root/bin/busybox" "$work/root/bin"
ln -s bin/init "$work/root/init"
cp "$1" "$work/root/bin/program"
for library in $(ldd "$1" | grep -o '/[^ ]*'); do
    cp -L "$library" "$work/root/lib64"
done
shift
{
    echo 'export LD_LIBRARY_PATH=/lib64'
    printf 'exec /bin/program'
    for argument; do
        printf " '%s'" "$(printf %s "$argument" | sed "s/'/'\\\\''/g")"
    done
} >"$work/root/command"
(cd "$work/root" && find . | "$root/bin/busybox" cpio -o -H newc 2>"$work/cpio.log") >"$work/medium/initrd"

# The medium to boot from. Five levels of pages and the system management mode of Bochs' BIOS do
# not go together.
cp "$root"/boot/vmlinuz-* "$work/medium/vmlinuz"
cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" "$work/medium"
cat >"$work/medium/isolinux.cfg" <<BOOT
default linux
label linux
kernel vmlinuz
append initrd=initrd console=ttyS0,115200 loglevel=1 panic=-1 no5lvl nokaslr mitigations=off apparmor=0
BOOT
"$root/usr/bin/genisoimage" -quiet -o "$work/medium.iso" -b isolinux.bin -c boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$work/medium"

# The serial line is descriptor 3. Switching the machine off is a panic of Bochs, which ends it.
cat >"$work/bochsrc" <<MACHINE
config_interface: textconfig
display_library: nogui
cpu: model=sapphire_rapids, ips=100000000, reset_on_triple_fault=0
memory: guest=2048, host=2048
romimage: file=$root/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$root/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/medium.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/fd/3
clock: sync=none
log: $work/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
MACHINE
{ "$root/bochs/bochs" -q -f "$work/bochsrc" 3>&1 >"$work/bochs.out" 2>&1 </dev/null || true; } |
    tee "$work/serial"

status=$(sed -n 's/^exit status: //p' "$work/serial" | tail -n 1)
if [ -z "$status" ]; then
    echo "The machine ended before the program did:" >&2
    tail -n 20 "$work/bochs.log" >&2
    exit 1
fi
exit "$status"
