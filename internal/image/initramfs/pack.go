package initramfs

import (
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// fastPacker is packer for a format that may be anything that its readers unpack, as long as it is done in good time.
func (f Format) fastPacker(w io.Writer) (io.WriteCloser, error) {
	if f == XZ {
		return &xzStored{w: w}, nil
	}
	return f.packer(w)
}

// packer compresses what is written to it. Close ends the archive, not w.
func (f Format) packer(w io.Writer) (io.WriteCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewWriter(w), nil
	case XZ:
		// The kernel knows no other check than CRC32 (lib/xz). A larger dictionary takes nearly twice the time, and one
		// per cent off a helper.
		return xz.WriterConfig{CheckSum: xz.CRC32, DictCap: 1 << 16}.NewWriter(w)
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
