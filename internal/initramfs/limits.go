package initramfs

// What is read at most. No header is believed beyond these.
const (
	maxName     = 4096     // PATH_MAX: the kernel drops an entry with a longer name or link
	maxEntries  = 1 << 18  // a distribution's largest have a tenth of it
	maxNames    = 16 << 20 // bytes of all names and links together
	maxUnpacked = 64 << 30 // bytes that all archives unpack to: it has to fit into a machine's memory
	maxWindow   = 1 << 27  // zstd's window and xz's dictionary: what the kernel allows zstd (lib/decompress_unzstd.c)
	maxMarker   = 64 << 10 // bytes of our own marker
	maxLinks    = 40       // symbolic links in one path, as in the kernel (MAXSYMLINKS)
)
