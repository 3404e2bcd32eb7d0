package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// lz4Chunk is what a chunk of the legacy format unpacks to at most, and all but the last do.
const lz4Chunk = 8 << 20

// lz4Written is what ours unpack to: nothing is gained by more but memory taken.
const lz4Written = 1 << 20

// lz4Reader unpacks the legacy format as the kernel does (lib/decompress_unlz4.c): chunks without an end mark, until
// four zero bytes, the end of the image, or, where the kernel would just read on, the magic of the next archive.
type lz4Reader struct {
	c    *cursor
	size int64 // of what may be read
	at   int64 // behind the last chunk that was read
	*lz4Buffers
	unread     []byte
	begun, end bool
}

// lz4Buffers are 16 MiB, so they are used again for the next archive of an image.
type lz4Buffers struct{ packed, chunk []byte }

func newLZ4Reader(r *io.SectionReader, used *lz4Buffers) *lz4Reader {
	if used == nil {
		used = &lz4Buffers{}
	}
	return &lz4Reader{c: newCursor(r), size: r.Size(), lz4Buffers: used}
}

// close gives the buffers back.
func (l *lz4Reader) close() *lz4Buffers {
	used := l.lz4Buffers
	l.end, l.unread, l.lz4Buffers = true, nil, nil
	l.c.close()
	return used
}

func (l *lz4Reader) Read(p []byte) (int, error) {
	for len(l.unread) == 0 {
		if l.end {
			return 0, io.EOF
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.unread)
	l.unread = l.unread[n:]
	return n, nil
}

// next unpacks the next chunk.
func (l *lz4Reader) next() error {
	if !l.begun {
		if err := l.c.skip(4); err != nil {
			return err
		}
		l.begun = true
		l.at = l.c.at
	}
	head, err := l.c.r.Peek(4)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case len(head) < 4, bytes.Equal(head, make([]byte, 4)), string(head) == formats[LZ4].magic:
		l.end = true
		return nil
	}
	size := binary.LittleEndian.Uint32(head)
	if size > uint32(lz4.CompressBlockBound(lz4Chunk)) { //nolint:gosec // it is a little above 8 MiB
		return fmt.Errorf("lz4: %d bytes into the archive: a chunk of %d bytes, more than any takes (%s); behind an lz4 archive only zero bytes or another may stand", l.c.at, size, show(head))
	}
	if err := l.c.skip(4); err != nil {
		return err
	}
	if int64(size) > l.size-l.c.at {
		return io.ErrUnexpectedEOF
	}
	if cap(l.packed) < int(size) {
		// The next may be a little larger. A small archive needs no buffer of full size.
		most := int64(lz4.CompressBlockBound(lz4Chunk))
		l.packed = make([]byte, min(most, l.size-l.c.at))
	}
	l.packed = l.packed[:size]
	n, err := io.ReadFull(l.c.r, l.packed)
	l.c.at += int64(n)
	if err != nil {
		return truncated(err)
	}
	// One byte stands for 255 at most. A small archive needs no chunk of full size.
	if most := min(lz4Chunk, 256*len(l.packed)+64); len(l.chunk) < most {
		l.chunk = make([]byte, most)
	}
	k, err := lz4.UncompressBlock(l.packed, l.chunk)
	if err != nil {
		return fmt.Errorf("lz4: the chunk %d bytes into the archive: %w", l.at, err)
	}
	l.unread, l.at = l.chunk[:k], l.c.at
	return nil
}

// lz4Writer packs into the legacy format.
type lz4Writer struct {
	w     io.Writer
	begun bool
	chunk []byte
	room  []byte // for a packed chunk
	c     lz4.Compressor
}

func (l *lz4Writer) Write(p []byte) (int, error) {
	if l.chunk == nil {
		l.chunk = make([]byte, 0, lz4Written)
	}
	written := 0
	for len(p) > 0 {
		n := min(len(p), lz4Written-len(l.chunk))
		l.chunk = append(l.chunk, p[:n]...)
		p, written = p[n:], written+n
		if len(l.chunk) == lz4Written {
			if err := l.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (l *lz4Writer) flush() error {
	if l.room == nil {
		l.room = make([]byte, 4+lz4.CompressBlockBound(lz4Written))
	}
	packed := l.room
	n, err := l.c.CompressBlock(l.chunk, packed[4:])
	if err != nil {
		return err
	}
	l.chunk = l.chunk[:0]
	binary.LittleEndian.PutUint32(packed, uint32(n)) //nolint:gosec // at most 8 MiB and a little
	packed = packed[:4+n]
	if !l.begun {
		l.begun = true
		packed = append([]byte(formats[LZ4].magic), packed...)
	}
	_, err = l.w.Write(packed)
	return err
}

func (l *lz4Writer) Close() error {
	if len(l.chunk) == 0 {
		return nil
	}
	return l.flush()
}
