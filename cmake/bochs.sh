#!/bin/sh
# bochs.sh ROOT FOLDER FILE...: runs programs, one after the other, under Linux on a Sapphire Rapids that Bochs emulates.
# Fails if one of them fails; 77 says that it skipped itself, as for ctest. A FILE that ends in .so is not run, but there
# for those that load it. ROOT is what debian_root.sh unpacked for avx512.mk; FOLDER gets the disk image and the logs.
# Needs no root and no network.
set -eu
root=$(realpath "$1") folder=$(realpath -m "$2")
shift 2
files=$(realpath "$@")
programs=$(echo "$files" | grep -v '\.so$' | tr '\n' ' ')
[ -n "$programs" ] || { echo "bochs.sh: expected programs to run, got none" >&2 && exit 1; }
libraries=$root/usr/lib/x86_64-linux-gnu
rooted() { # ROOT's program of that name, on ROOT's C library
  program=$1
  shift
  "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/$program" "$@"
}

rm -rf "$folder"
mkdir -p "$folder/disk"
for name in bin dev proc sys tmp; do mkdir -p "$folder/memory/$name"; done
cd "$folder"

# The file system in memory: busybox, the files and all that they link, at the paths that they have here.
cp "$root/usr/bin/busybox" memory/bin
# shellcheck disable=SC2086 # a list
ldd $files | grep -o '/[^ :]*' | sort -u | while read -r file; do
  mkdir -p "memory$(dirname "$file")"
  cp -L "$file" "memory$file"
done
cat > memory/init << END
#!/bin/busybox sh
/bin/busybox --install /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1
failed=0
for program in $programs; do
  name=\$(basename \$program)
  \$program
  case \$? in
    0) echo "\$name: passed" ;;
    77) echo "\$name: skipped" ;;
    *) echo "\$name: FAILED"; failed=\$((failed + 1)) ;;
  esac
done
echo "Done on\$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2): \$failed failed"
sleep 2 # while the last characters are on the wire
poweroff -f
END
chmod +x memory/init
(cd memory && find . | "$root/usr/bin/busybox" cpio --quiet -o -H newc) > disk/initrd

# The disk. What Bochs 3.0's Sapphire Rapids asks of the kernel: no five-level page tables, which do not survive the BIOS's
# system management mode, and no AMX, which it has without the XFD that Linux wants with it.
cp "$root"/boot/vmlinuz-* disk/vmlinuz
cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$root/usr/lib/syslinux/modules/bios/ldlinux.c32" disk
cat > disk/isolinux.cfg << END
default linux
label linux
  kernel /vmlinuz
  initrd /initrd
  append console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no5lvl clearcpuid=amx_tile
END
rooted genisoimage -quiet -o disk.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table disk

cat > bochsrc << END
plugin_ctrl: serial=1
config_interface: textconfig
display_library: term
memory: guest=2048, host=2048
romimage: file=$root/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$root/usr/share/bochs/VGABIOS-lgpl-latest
boot: cdrom
ata0-master: type=cdrom, path=disk.iso, status=inserted
cpu: model=sapphire_rapids, ips=50000000, ignore_bad_msrs=1
clock: sync=none
com1: enabled=1, mode=file, dev=serial.txt
log: bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
END
touch serial.txt
LTDL_LIBRARY_PATH=$libraries/bochs/plugins TERM=vt100 rooted bochs-bin -q -f bochsrc < /dev/null > bochs.txt 2>&1 &
tail --pid=$! -n +1 -f serial.txt
wait $! || true # it ends with 1 when the machine is switched off
grep -q "^Done on.*: 0 failed" serial.txt
