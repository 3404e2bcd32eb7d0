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

// decoders are those that have unpacked an archive of an image and wait for the next. A window is as large as an archive
// wants it, so it is used again: however many archives there are, one of a kind is held.
type decoders struct {
	mu   sync.Mutex
	gzip *gzip.Reader
	xz   *xz.Reader
	zstd *zstd.Decoder
	lz4  *lz4Buffers
}

// take takes what waits in a place; the zero value where nothing does.
func take[T any](d *decoders, from *T) T {
	d.mu.Lock()
	defer d.mu.Unlock()
	var none T
	waiting := *from
	*from = none
	return waiting
}

// leave lets a decoder wait.
func leave[T any](d *decoders, at *T, decoder T) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*at = decoder
}

// buffered are the buffers of readers that have ended.
var buffered = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

func newBuffered(r io.Reader) *bufio.Reader {
	b := buffered.Get().(*bufio.Reader) //nolint:errcheck,forcetypeassert // nothing else is in there
	b.Reset(r)
	return b
}

func releaseBuffered(b *bufio.Reader) {
	b.Reset(nil)
	buffered.Put(b)
}

// open starts to unpack the archive of a format that begins at an offset of an image that has size bytes.
func (d *decoders) open(f Format, src io.ReaderAt, offset, size int64) (*stream, error) {
	section := io.NewSectionReader(src, offset, size-offset)
	switch f {
	case Gzip:
		return d.openGzip(section, offset)
	case LZ4:
		l := newLZ4Reader(section, take(d, &d.lz4))
		return &stream{
			Reader: l,
			close:  func() { leave(d, &d.lz4, l.close()) },
			end:    func() int64 { return offset + l.at },
		}, nil
	case XZ:
		return d.openSized(section, offset, xzExtent, d.openXZ)
	case Zstd:
		return d.openSized(section, offset, zstdExtent, d.openZstd)
	}
	return &stream{Reader: section, close: func() {}}, nil
}

func (d *decoders) openGzip(section *io.SectionReader, offset int64) (*stream, error) {
	// flate takes no byte too many from an io.ByteReader, so what is left in the buffer is what stands behind.
	in := newBuffered(section)
	z := take(d, &d.gzip)
	err := gzipHeader(in)
	switch {
	case err != nil:
	case z == nil:
		z, err = gzip.NewReader(in)
	default:
		err = z.Reset(in)
	}
	if err != nil {
		releaseBuffered(in)
		return nil, err
	}
	z.Multistream(false)
	return &stream{
		Reader: z,
		close: func() {
			releaseBuffered(in)
			leave(d, &d.gzip, z)
		},
		end: func() int64 {
			at, _ := section.Seek(0, io.SeekCurrent) // never fails
			return offset + at - int64(in.Buffered())
		},
	}, nil
}

// openSized is open for a decoder that takes more than it needs. Its format tells the sizes of its pieces, so the end is
// found first, without unpacking, and the decoder gets no more than that.
func (d *decoders) openSized(section *io.SectionReader, offset int64, extent func(*cursor) error,
	open func(io.Reader) (io.Reader, func(), error),
) (*stream, error) {
	c := newCursor(section)
	err := extent(c)
	c.close()
	if err != nil {
		return nil, err
	}
	end := offset + c.at
	in := newBuffered(io.NewSectionReader(section, 0, c.at))
	r, done, err := open(in)
	if err != nil {
		releaseBuffered(in)
		return nil, err
	}
	return &stream{Reader: r, end: func() int64 { return end }, close: func() {
		done()
		releaseBuffered(in)
	}}, nil
}

func (d *decoders) openXZ(in io.Reader) (_ io.Reader, done func(), err error) {
	z := take(d, &d.xz)
	if z == nil {
		z, err = xz.NewReader(in, maxWindow)
	} else {
		err = z.Reset(in)
	}
	return z, func() { leave(d, &d.xz, z) }, err
}

func (d *decoders) openZstd(in io.Reader) (_ io.Reader, done func(), err error) {
	z := take(d, &d.zstd)
	if z == nil {
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	} else {
		err = z.Reset(in)
	}
	return z, func() { leave(d, &d.zstd, z) }, err
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

func newCursor(r io.Reader) *cursor { return &cursor{r: newBuffered(r)} }

// close gives the buffer back; at stays.
func (c *cursor) close() { releaseBuffered(c.r) }

// next reads the next n bytes, at most a few.
func (c *cursor) next(n int) ([]byte, error) {
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
