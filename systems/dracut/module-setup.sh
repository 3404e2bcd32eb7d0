#!/bin/bash
# The dracut module nametag: in every initrd that is made while the package is installed. It does nothing unless the kernel
# command line has nametag.wait= or talos.hostname.wait=.

check() {
    require_binaries /usr/bin/nametag || return 1
    return 0
}

depends() {
    return 0
}

installkernel() {
    # Also in an initrd that is made on another machine (hostonly): every NIC of Hetzner Cloud is a virtio one. The packet
    # socket is what DHCP and ARP are spoken over.
    hostonly='' instmods virtio_net virtio_pci af_packet
}

install() {
    inst_simple /usr/bin/nametag
    if dracut_module_included systemd; then
        # shellcheck disable=SC2154 # dracut sets moddir, initdir and these folders
        inst_simple "$moddir/nametag.service" "$systemdsystemunitdir/nametag.service"
        inst_simple "$moddir/nametag-early.service" "$systemdsystemunitdir/nametag-early.service"
        mkdir -p "$initdir$systemdutildir/system-generators"
        ln_r /usr/bin/nametag "$systemdutildir/system-generators/nametag-generator"
    else
        inst_hook pre-pivot 20 "$moddir/nametag.sh"
    fi
}
