// Package uki reads unified kernel images, and writes them again with another command line or another initramfs.
//
// A unified kernel image (UKI) is an EFI program whose code is a small stub, systemd's as a rule, and whose further
// sections are what the stub boots: .linux, .initrd, .cmdline and their like (the UAPI group's specification UPI.5).
// Talos 1.10 and later boots by nothing else.
//
//	image, err := uki.Open(file, size)
//	result, err := uki.EditFile(ctx, "vmlinuz.efi", "out.efi", uki.Edit{CommandLine: arguments.Apply})
//
// What may move: the stub finds what it boots by the names of the sections, in the section table of its own image in
// memory. So those sections can stand at any address, and they are what gives way when one of them grows. The stub's
// own code and data refer to each other by address and stay at theirs. In the file any section can stand anywhere, and
// they stand there without gaps, since the hash that a signature covers is over nothing but sections and what is behind
// the last one.
//
// Big sections are streamed: memory does not grow with the image. An *Image is not changed by anything here, and may be
// used by several goroutines where its reader may.
package uki
