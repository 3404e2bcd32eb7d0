package initramfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// xzExtent moves a cursor behind one stream (The .xz File Format, version 1.2.1). The kernel unpacks one stream at a
// time. Only what tells a size is looked at; what is wrong beyond that, the decoder finds.
func xzExtent(c *cursor) error {
	head, err := c.next(12)
	if err != nil {
		return err
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errors.New("xz: the stream's header is damaged")
	}
	check, ok := xzChecks[head[7]]
	if !ok {
		return fmt.Errorf("xz: a check of kind %d, which is none", head[7])
	}
	for {
		size, err := c.ReadByte()
		if err != nil {
			return err
		}
		if size == 0 {
			return xzIndexExtent(c)
		}
		header, err := c.next(4*(int(size)+1) - 1)
		if err != nil {
			return err
		}
		if err := xzFilters(header); err != nil {
			return err
		}
		begin := c.at
		if err := lzma2Extent(c); err != nil {
			return err
		}
		if err := c.skip(-(c.at-begin)&3 + check.size); err != nil {
			return err
		}
	}
}

// xzChecks are the checks that a stream may have, by what its header calls them (section 2.1.1.2).
var xzChecks = map[byte]struct {
	size int64
	name string // of one that the kernel does not know (lib/xz, XZ_DEC_ANY_CHECK is not set)
}{0x00: {0, ""}, 0x01: {4, ""}, 0x04: {8, "CRC64"}, 0x0a: {32, "SHA-256"}}

// xzWarning says why the kernel will not unpack a stream, given its header. That is no reason to refuse it: whoever made
// it so unpacks it otherwise, or has yet to find out.
func xzWarning(head []byte) string {
	if name := xzChecks[head[7]].name; name != "" {
		return "xz with " + name + ", and the kernel knows CRC32 only: pack it with xz --check=crc32"
	}
	return ""
}

// xzFilters refuses filters that the kernel does not know (lib/xz): it has LZMA2, and one of those for machine code in
// front of it. b is a block's header from its flags on (section 3.1).
func xzFilters(b []byte) error {
	flags, at := b[0], 1
	for _, size := range []byte{0x40, 0x80} { // of the block, packed and unpacked
		if flags&size != 0 {
			_, n := binary.Uvarint(b[at:])
			if n <= 0 {
				return errors.New("xz: a block's header is damaged")
			}
			at += n
		}
	}
	filters := int(flags&3) + 1
	if flags&0x3c != 0 || filters > 2 || len(b) < at+2*filters {
		return errors.New("xz: a block's header with more in it than the kernel knows")
	}
	if filters == 2 {
		if id := b[at]; id < 4 || id > 0x0b || b[at+1] != 0 { // section 5.3.2
			return fmt.Errorf("xz: filter %#x, which the kernel does not know: repack the archive with xz --check=crc32", id)
		}
		at += 2
	}
	if b[at] != 0x21 {
		return fmt.Errorf("xz: filter %#x where LZMA2 belongs", b[at])
	}
	return nil
}

// lzma2Extent moves behind a block's data: LZMA2 is in every case the last filter, and comes in chunks that tell their
// size.
func lzma2Extent(c *cursor) error {
	for {
		control, err := c.ReadByte()
		if err != nil {
			return err
		}
		var size int64
		switch {
		case control == 0:
			return nil
		case control >= 0x80:
			b, err := c.next(4)
			if err != nil {
				return err
			}
			if size = int64(binary.BigEndian.Uint16(b[2:])) + 1; control >= 0xc0 {
				size++ // new properties
			}
		case control <= 2:
			b, err := c.next(2)
			if err != nil {
				return err
			}
			size = int64(binary.BigEndian.Uint16(b)) + 1
		default:
			return fmt.Errorf("xz: no LZMA2 chunk %d bytes into the stream", c.at-1)
		}
		if err := c.skip(size); err != nil {
			return err
		}
	}
}

// xzIndexExtent moves behind the index and the stream's footer (section 4, 2.1.2).
func xzIndexExtent(c *cursor) error {
	begin := c.at - 1
	records, err := binary.ReadUvarint(c)
	if err != nil {
		return fmt.Errorf("xz: the index: %w", truncated(err))
	}
	for range records { // each takes bytes: a hostile number ends with the image
		for range 2 {
			if _, err := binary.ReadUvarint(c); err != nil {
				return fmt.Errorf("xz: the index: %w", truncated(err))
			}
		}
	}
	if err := c.skip(-(c.at-begin)&3 + 4); err != nil {
		return err
	}
	footer, err := c.next(12)
	if err != nil {
		return err
	}
	if string(footer[10:]) != "YZ" {
		return errors.New("xz: the stream's footer is damaged")
	}
	return nil
}
