package initramfs

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// xzStored writes an xz stream that packs nothing: LZMA2 has chunks of bytes as they are. To pack a helper by xz takes
// longer than all the rest of the work, and behind an xz stream another archive than xz makes "xz -t" and all tools that
// ask it take the image for damaged.
type xzStored struct {
	w            io.Writer
	sum          uint32 // of what is in the block
	chunk        []byte
	packed, size uint64 // bytes of the block's data, and of what it holds
	begun        bool
}

const (
	xzChunk      = 1 << 16 // an LZMA2 chunk has at most as much
	xzDictionary = 0x08    // 64 KiB, by section 5.3.1
	xzHeaderSize = 12      // of a block's header as it is written here
)

// xzHead is what a stream begins with (section 2.1.1): its checks are CRC32, the only ones that the kernel knows.
var xzHead = []byte("\xfd7zXZ\x00\x00\x01")

func (x *xzStored) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), xzChunk-len(x.chunk))
		x.chunk = append(x.chunk, p[:n]...)
		p, written = p[n:], written+n
		if len(x.chunk) == xzChunk {
			if err := x.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func crc32LE(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }

// begin writes the headers of the stream and of its one block (section 3.1).
func (x *xzStored) begin() error {
	x.begun = true
	block := []byte{xzHeaderSize/4 - 1, 0, 0x21, 1, xzDictionary, 0, 0, 0}
	b := append(append([]byte(nil), xzHead...), crc32LE(xzHead[6:])...)
	b = append(append(b, block...), crc32LE(block)...)
	_, err := x.w.Write(b)
	return err
}

// flush writes a chunk.
func (x *xzStored) flush() error {
	control := byte(2)
	if !x.begun {
		if err := x.begin(); err != nil {
			return err
		}
		control = 1 // the dictionary begins anew
	}
	if len(x.chunk) == 0 {
		return nil
	}
	head := binary.BigEndian.AppendUint16([]byte{control}, uint16(len(x.chunk)-1)) //nolint:gosec // at most 1<<16 - 1
	for _, b := range [][]byte{head, x.chunk} {
		if _, err := x.w.Write(b); err != nil {
			return err
		}
		x.packed += uint64(len(b))
	}
	x.sum = crc32.Update(x.sum, crc32.IEEETable, x.chunk)
	x.size += uint64(len(x.chunk))
	x.chunk = x.chunk[:0]
	return nil
}

// Close ends the block and the stream.
func (x *xzStored) Close() error {
	if err := x.flush(); err != nil {
		return err
	}
	x.packed++ // the byte that ends LZMA2's data
	b := append(make([]byte, 1+(-x.packed&3)), binary.LittleEndian.AppendUint32(nil, x.sum)...)

	const check = 4
	index := []byte{0, 1} // one record: section 4
	index = binary.AppendUvarint(index, xzHeaderSize+x.packed+check)
	index = binary.AppendUvarint(index, x.size)
	index = append(index, make([]byte, -len(index)&3)...)
	index = append(index, crc32LE(index)...)

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)) //nolint:gosec // a few bytes
	footer = append(footer, xzHead[6:]...)
	b = append(append(b, index...), append(append(crc32LE(footer), footer...), "YZ"...)...)
	_, err := x.w.Write(b)
	return err
}
