package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// bufferSize is that of one buffered reader.
const bufferSize = 128 << 10

// A stream unpacks one archive of an image.
type stream struct {
	io.Reader
	// end is the offset behind the archive's last byte. It is right once Read has returned io.EOF. Plain archives have
	// none: theirs is where their trailer ends.
	end   func() int64
	close func()
}

// open starts to unpack the archive of a format that begins at an offset of an image that has size bytes. used are
// buffers that may be used again.
func (f Format) open(src io.ReaderAt, offset, size int64, used *sync.Pool) (*stream, error) {
	section := io.NewSectionReader(src, offset, size-offset)
	var extent func(*cursor) error
	switch f {
	case Plain:
		return &stream{Reader: section, close: func() {}}, nil
	case Gzip:
		// flate takes no byte too many from an io.ByteReader, so what is left in the buffer is what stands behind.
		in := bufio.NewReaderSize(section, bufferSize)
		if err := gzipHeader(in); err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		return &stream{Reader: z, close: func() {}, end: func() int64 {
			at, _ := section.Seek(0, io.SeekCurrent) // never fails
			return offset + at - int64(in.Buffered())
		}}, nil
	case LZ4:
		l := newLZ4Reader(section, used)
		return &stream{Reader: l, close: func() { l.close(used) }, end: func() int64 { return offset + l.at }}, nil
	case XZ:
		extent = xzExtent
	case Zstd:
		extent = zstdExtent
	}

	// The decoders of these two take more than they need. Their formats tell the sizes of their pieces, so the end is
	// found first, without unpacking, and the decoder gets no more than that.
	c := newCursor(section)
	if err := extent(c); err != nil {
		return nil, err
	}
	end := offset + c.at
	in := bufio.NewReaderSize(io.NewSectionReader(src, offset, c.at), bufferSize)
	s := &stream{end: func() int64 { return end }, close: func() {}}
	if f == XZ {
		z, err := xz.NewReader(in, maxWindow)
		if err != nil {
			return nil, err
		}
		s.Reader = z
		return s, nil
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	s.Reader, s.close = z, z.Close
	return s, nil
}

// gzipHeader refuses a header with parts that the kernel takes for data: it knows of the name only
// (lib/decompress_inflate.c).
func gzipHeader(in *bufio.Reader) error {
	head, err := in.Peek(10)
	if err != nil {
		return truncated(err)
	}
	const text, name = 1, 8 // RFC 1952, section 2.3.1
	if more := head[3] &^ (text | name); more != 0 {
		return fmt.Errorf("gzip: the header has flags %#x, of parts that the kernel does not know: repack the archive with gzip", more)
	}
	return nil
}

// A cursor reads a compressed archive's own structure and knows where it is.
type cursor struct {
	r  *bufio.Reader
	at int64
}

func newCursor(r io.Reader) *cursor { return &cursor{r: bufio.NewReaderSize(r, bufferSize)} }

// take reads the next n bytes, at most a few.
func (c *cursor) take(n int) ([]byte, error) {
	b := make([]byte, n)
	k, err := io.ReadFull(c.r, b)
	c.at += int64(k)
	return b, truncated(err)
}

func (c *cursor) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.at++
	}
	return b, truncated(err)
}

func (c *cursor) skip(n int64) error {
	for n > 0 {
		k, err := c.r.Discard(int(min(n, 1<<30)))
		c.at += int64(k)
		n -= int64(k)
		if err != nil {
			return truncated(err)
		}
	}
	return nil
}

// truncated is the error, where the end of what there is comes as a surprise.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
