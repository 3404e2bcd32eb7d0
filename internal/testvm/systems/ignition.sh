#!/usr/bin/env bash
# ignition.sh BASE STAGE IGNITION OUT: a Debian whose initrd has Ignition, as Fedora CoreOS and Flatcar have it: OUT/disk.ext4, a
# root without nametag; OUT/ignition, an initrd with STAGE's nametag in it, and OUT/ignition-alone, one without. IGNITION has the
# program, and the dracut module of its source. Run in a mount namespace of its own.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
base=$1 stage=$2 ignition=$3 out=$4

work=$(mktemp -d)
trap 'umount -l "$work" 2>/dev/null; rmdir "$work"' EXIT
mount -t tmpfs -o size=2g tmpfs "$work"
mkdir "$work"/{upper,overlay,root}
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/overlay" overlay "$work/root"
root=$work/root modules=$work/root/usr/lib/dracut/modules.d
rm -f "$root"/etc/{hostname,resolv.conf} "$root"/etc/systemd/system/{multi-user.target.wants/{NetworkManager,e2scrub_reap}.service,network-online.target.wants/*,timers.target.wants/*}
echo "LABEL=root / ext4 defaults 0 0" >"$root/etc/fstab"
mkdir -p "$root/etc/systemd/network"
printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/80-dhcp.network"
truncate -s 1G "$out/disk.ext4"
mkfs.ext4 -q -F -L root -E lazy_itable_init=1 -d "$root" "$out/disk.ext4"

for dir in dev proc sys; do mount --rbind "/$dir" "$root/$dir"; done
release=$(ls "$root/usr/lib/modules")
cp -R "$ignition/30ignition" "$modules/"
cp "$ignition/ignition" "$modules/30ignition/ignition"
chmod -R u+w "$modules/30ignition"
chmod +x "$modules"/30ignition/{module-setup.sh,ignition,ignition-generator,ignition-kargs-helper.sh} # Go's proxy loses it
# What a distribution adds to it: a network, as soon as Ignition asks for one. (Debian's dracut-network is not in this root.)
mkdir "$modules"/{40network,45url-lib}
cat >"$modules/45url-lib/module-setup.sh" <<'MODULE'
check() { return 255; }
install() { :; }
MODULE
cat >"$modules/40network/module-setup.sh" <<'MODULE'
check() { return 255; }
depends() { echo systemd; }
installkernel() { hostonly='' instmods virtio_net virtio_pci af_packet; }
install() {
    inst_multiple /lib/systemd/systemd-networkd /lib/systemd/system/systemd-networkd.service /lib/systemd/system/systemd-networkd.socket ip
    inst_simple /etc/systemd/network/80-dhcp.network
    grep '^systemd-network:' /etc/passwd >>"$initdir/etc/passwd"
    grep '^systemd-network:' /etc/group >>"$initdir/etc/group"
    mkdir -p "$initdir$systemdsystemunitdir/ignition-fetch.service.requires"
    ln -s ../systemd-networkd.service "$initdir$systemdsystemunitdir/ignition-fetch.service.requires/"
}
MODULE
chmod -R +x "$modules"/{40network,45url-lib}

make_initrd() {
  chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C dracut --force --quiet --no-hostonly --no-hostonly-cmdline --no-early-microcode \
    --no-compress --kver "$release" --filesystems ext4 --add 'bash ignition' \
    --omit "i18n plymouth lvm mdraid dmraid multipath crypt btrfs dm drm bluetooth nvdimm resume terminfo" "/tmp/$1"
  mv "$root/tmp/$1" "$out/$1"
}
make_initrd ignition-alone
cp -R --preserve=mode,links --no-preserve=ownership "$stage/." "$root/"
make_initrd ignition
chmod 644 "$out"/*
