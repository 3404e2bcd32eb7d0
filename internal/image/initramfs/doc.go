// Package initramfs puts nametag into an initramfs, shows what is in one, and takes nametag out again.
//
//	im, err := initramfs.Read(ctx, file, size, nil, nil)
//	change, err := im.Add(ctx, out, helper, initramfs.Options{})   // or im.Remove(ctx, out)
//
// An image is one or more archives, one behind the other, each a newc cpio archive as it is or compressed, with zero
// bytes between them: early microcode first, the OS next, what was added later last. The kernel unpacks them in order
// into one tree. So nametag comes as a further archive at the end, and what is there already is copied as it stands,
// never unpacked and packed again.
//
// What an image means is what the kernel makes of it (init/initramfs.c and lib/decompress_*.c), and some of that is
// not what one would guess:
//
//   - A file goes over an existing one in place: where that is a hard link, all its names change. A name of another type
//     is taken away first.
//   - A file whose folder is missing is dropped without a word; a folder that exists already gets the new entry's mode.
//   - An archive that is not compressed begins at a multiple of four, and so does whatever stands behind one.
//   - lz4 has no end: kernels read on until four zero bytes or the end of the image, kernels before 5.14 even through
//     the zero bytes. Only another lz4 archive may stand right behind.
//
// Reading is streamed. Memory is bounded whatever a header claims: see the limits in limits.go.
package initramfs
