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
	head, err := c.take(12)
	if err != nil {
		return err
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errors.New("xz: the stream's header is damaged")
	}
	check := []int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[head[7]&15] // section 2.1.1.2
	for {
		size, err := c.ReadByte()
		if err != nil {
			return err
		}
		if size == 0 {
			return xzIndexExtent(c)
		}
		if err := c.skip(4*(int64(size)+1) - 1); err != nil { // the block's header
			return err
		}
		begin := c.at
		if err := lzma2Extent(c); err != nil {
			return err
		}
		if err := c.skip(-(c.at-begin)&3 + check); err != nil {
			return err
		}
	}
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
			b, err := c.take(4)
			if err != nil {
				return err
			}
			if size = int64(binary.BigEndian.Uint16(b[2:])) + 1; control >= 0xc0 {
				size++ // new properties
			}
		case control <= 2:
			b, err := c.take(2)
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
	footer, err := c.take(12)
	if err != nil {
		return err
	}
	if string(footer[10:]) != "YZ" {
		return errors.New("xz: the stream's footer is damaged")
	}
	return nil
}
