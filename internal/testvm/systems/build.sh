#!/usr/bin/env bash
# build.sh BASE STAGE OUT: BASE, a Debian's root, with STAGE on top of it, becomes OUT/disk.ext4; and by its own tools the
# initramfs OUT/dracut, OUT/dracut-without-systemd and OUT/initramfs-tools. Run in a mount namespace of its own.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
base=$1 stage=$2 out=$3

work=$(mktemp -d)
trap 'umount -l "$work" 2>/dev/null; rmdir "$work"' EXIT
mount -t tmpfs -o size=2g tmpfs "$work"
mkdir "$work"/{upper,overlay,root}
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" overlay "$work/root"
root=$work/root
cp -R --preserve=mode,links --no-preserve=ownership "$stage/." "$root/"
# Who gets a lease is said on the kernel command line (systemd.wants=): nobody does by himself.
rm -f "$root"/etc/{hostname,resolv.conf} "$root"/etc/systemd/system/{multi-user.target.wants/{NetworkManager,e2scrub_reap}.service,network-online.target.wants/*,timers.target.wants/*}
echo "LABEL=root / ext4 defaults 0 0" >"$root/etc/fstab"
for dir in dev proc sys; do mount --rbind "/$dir" "$root/$dir"; done
release=$(ls "$root/usr/lib/modules")

in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
# What a generic initrd of dracut has; less of it takes less time to unpack on an emulated processor.
dracut="dracut --force --quiet --no-hostonly --no-hostonly-cmdline --no-early-microcode --no-compress --kver $release --filesystems ext4"
in_root $dracut --omit "i18n plymouth lvm mdraid dmraid multipath crypt btrfs dm drm bluetooth nvdimm qemu resume terminfo" /tmp/dracut
in_root $dracut --omit "i18n plymouth lvm mdraid dmraid multipath crypt btrfs dm drm bluetooth nvdimm qemu resume terminfo systemd systemd-initrd systemd-ac-power systemd-ask-password systemd-journald systemd-udevd systemd-modules-load systemd-sysctl systemd-sysusers systemd-tmpfiles systemd-hostnamed systemd-repart systemd-pstore systemd-coredump dracut-systemd dbus dbus-daemon dbus-broker" /tmp/dracut-without-systemd
in_root mkinitramfs -o /tmp/initramfs-tools "$release"
for made in dracut dracut-without-systemd initramfs-tools; do mv "$root/tmp/$made" "$out/$made"; done
chmod 644 "$out"/*

for dir in sys proc dev; do umount -R -l "$root/$dir"; done
truncate -s 1G "$out/disk.ext4"
mkfs.ext4 -q -F -L root -E lazy_itable_init=1 -d "$root" "$out/disk.ext4"
