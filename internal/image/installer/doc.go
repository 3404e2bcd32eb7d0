// Package installer puts nametag into a Talos installer image that exists already: a further layer has the amended
// initramfs or UKI, and nothing else about the image changes.
//
// What an installer has to boot stands below usr/install/ARCHITECTURE:
//
//	vmlinuz, initramfs.xz      up to Talos 1.9
//	vmlinuz.efi                from 1.10 on: a UKI, and no kernel beside it
//	vmlinuz.efi.signed         up to 1.9, with SecureBoot
//
// An installer that finds a vmlinuz beside its UKI would take that: a file that is not there is never added.
package installer
