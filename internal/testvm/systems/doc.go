//go:build linux

// Package systems boots real systems with nametag in them: a Debian as it comes, with
// its own systemd, dracut, initramfs-tools, networkd, NetworkManager and dhclient, in
// QEMU, on the fake cloud. Two of the guest's services write down the name that they
// see: one that starts as early as a service can, and one ten seconds after a lease
// that carries another name is in effect.
//
// The root is made once (hack/os-deps) and kept in the user's cache, and so are the images
// that are made of it, until what is in them changes.
package systems
