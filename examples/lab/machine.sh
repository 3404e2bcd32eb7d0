#!/bin/sh
# A virtual machine on the lab's network: its NIC is on one bridge with the lab's eth0, so that the fake cloud's DHCP server and
# metadata service answer it, and its firmware says whose server it is.
#
#   nametagctl lab --hostname web-1 -- sh machine.sh KERNEL INITRAMFS [ARGUMENT…]
#
# As root: a tap device is made. It ends when the machine does, or by Ctrl-A x.
set -eu
kernel=$1 initramfs=$2
shift 2
ip link add br0 type bridge
ip tuntap add tap0 mode tap
ip link set eth0 master br0
ip link set tap0 master br0
for link in eth0 tap0 br0; do ip link set "$link" up; done
exec qemu-system-x86_64 -m 512 -nographic -no-reboot -kernel "$kernel" -initrd "$initramfs" \
  -append "console=ttyS0 panic=-1 talos.hostname.wait=2m $*" \
  -smbios "type=1,manufacturer=Hetzner,serial=$(cat "$NAMETAG_DMI/product_serial")" \
  -netdev tap,id=net,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=net
