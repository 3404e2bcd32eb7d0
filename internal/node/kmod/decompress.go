//go:build linux

package kmod

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// largest bounds a module's file, and what it decompresses to. The largest
// network drivers have about 10 MiB.
const largest = 32 << 20

// dictionary bounds what an xz stream may ask for, before a byte of it is seen: as
// much as by xz -9.
const dictionary = 64 << 20

const xzMagic = "\xfd7zXZ\x00"

// format is how a module's file is compressed.
type format uint8

const (
	plain format = iota
	xzFormat
	zstdFormat
	gzipFormat
)

// formatOf tells the format by the first bytes, whatever the file's name says.
func formatOf(f *os.File) (format, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() > largest {
		return 0, fmt.Errorf("%d bytes are more than a module has (at most %d)", info.Size(), largest)
	}
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for _, m := range []struct {
		magic  string
		format format
	}{
		{"\x7fELF", plain},
		{xzMagic, xzFormat},
		{"\x28\xb5\x2f\xfd", zstdFormat},
		{"\x1f\x8b", gzipFormat},
	} {
		if strings.HasPrefix(string(head[:n]), m.magic) {
			return m.format, nil
		}
	}
	if n == 0 {
		return 0, errors.New("the file is empty")
	}
	return 0, fmt.Errorf("neither an ELF object nor xz, zstd or gzip: it begins with % x", head[:n])
}

// decompress writes what is in r to w, at most limit bytes.
func decompress(w io.Writer, r io.Reader, f format, limit int64) error {
	var src io.Reader
	switch f {
	case xzFormat:
		d, err := xz.NewReader(r, dictionary)
		if err != nil {
			return truncated(err)
		}
		d.Multistream(false) // as the kernel, whose modules are one stream
		src = d
	case zstdFormat:
		d, err := zstd.NewReader(r,
			zstd.WithDecoderConcurrency(1), // no goroutines
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(largest),
			zstd.WithDecoderMaxMemory(largest))
		if err != nil {
			return err
		}
		defer d.Close()
		src = d
	case gzipFormat:
		d, err := gzip.NewReader(r)
		if err != nil {
			return truncated(err)
		}
		src = d
	default:
		src = r
	}
	n, err := io.Copy(w, io.LimitReader(src, limit+1))
	if err != nil {
		return truncated(err)
	}
	if n > limit {
		return fmt.Errorf("it decompresses to more than %d bytes", limit)
	}
	return nil
}

// truncated says what an unexpected end is.
func truncated(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, xz.ErrBuf) {
		return fmt.Errorf("the file is cut short: %w", io.ErrUnexpectedEOF)
	}
	return err
}
