package initramfs

import (
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// packer compresses what is written to it. Close ends the archive, not w.
func (f Format) packer(w io.Writer) (io.WriteCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewWriter(w), nil
	case XZ:
		// The kernel's decoder knows CRC32 for certain, and CRC64 only where it was configured (lib/xz).
		return xz.WriterConfig{CheckSum: xz.CRC32, DictCap: 1 << 20}.NewWriter(w)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	case LZ4:
		return &lz4Writer{w: w}, nil
	default:
		return plainPacker{w}, nil
	}
}

type plainPacker struct{ io.Writer }

func (plainPacker) Close() error { return nil }
