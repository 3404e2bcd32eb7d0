package initramfs

// What is read at most, beside the budget that the caller gives. No header is believed beyond these.
const (
	maxName     = 4096     // PATH_MAX: the kernel drops an entry with a longer name or link
	maxWindow   = 1 << 27  // zstd's window and xz's dictionary, of which there is one at a time: what the kernel allows zstd (lib/decompress_unzstd.c)
	maxArchives = 1 << 12  // in one image, of which each costs a decoder; real ones have a handful
	maxMarker   = 64 << 10 // bytes of our own marker
	maxKept     = 1 << 20  // bytes of an /init that need not be unpacked again to be copied: a script, a small program
	maxPart     = 255      // NAME_MAX: bytes of a name between two slashes
	maxLinks    = 40       // symbolic links in one path, as in the kernel (MAXSYMLINKS)
)
