//go:build linux

// Package apply gives a system its name where nametag is a service or a step of an
// initramfs, and not the first process: it waits by the policy of the kernel command
// line, sets the kernel's hostname, writes the record, makes the name last, and says
// all of it on the console, in the journal, and to systemd.
//
// An explicit name ends the matter, be it on the command line or in /etc/hostname.
// So does a record of this boot: what the initramfs found out is not asked again.
//
// In a boot, what asks is a process of its own ([Config.Apart]), whose death is no worse than an outage.
package apply
