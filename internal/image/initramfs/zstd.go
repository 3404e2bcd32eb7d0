package initramfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// zstdExtent moves a cursor behind one frame (RFC 8878, section 3.1.1). The kernel unpacks one frame at a time.
func zstdExtent(c *cursor) error {
	head, err := c.next(5)
	if err != nil {
		return err
	}
	descriptor := head[4]
	single := descriptor&0x20 != 0
	if descriptor&0x08 != 0 {
		return errors.New("zstd: a reserved bit is set in the frame's header")
	}
	rest := []int64{0, 1, 2, 4}[descriptor&3] // the dictionary's id
	if rest != 0 {
		return errors.New("zstd: the frame needs a dictionary of its own, which the kernel has not")
	}
	if !single {
		b, err := c.ReadByte()
		if err != nil {
			return err
		}
		// Section 3.1.1.1.2.
		base := uint64(1) << (10 + b>>3)
		if window := base + base/8*uint64(b&7); window > maxWindow {
			return fmt.Errorf("zstd: a window of %d bytes; the kernel allows %d", window, maxWindow)
		}
	}
	size, err := c.next([]int{0, 2, 4, 8}[descriptor>>6])
	if err != nil {
		return err
	}
	if single { // the content is the window, and its size takes a byte at least
		if len(size) == 0 {
			if size, err = c.next(1); err != nil {
				return err
			}
		}
		var full [8]byte
		copy(full[:], size)
		if window := binary.LittleEndian.Uint64(full[:]); window > maxWindow {
			return fmt.Errorf("zstd: a window of %d bytes; the kernel allows %d", window, maxWindow)
		}
	}
	for {
		b, err := c.next(3)
		if err != nil {
			return err
		}
		header := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		size := int64(header >> 3)
		switch header >> 1 & 3 {
		case 1: // one byte, repeated
			size = 1
		case 3:
			return fmt.Errorf("zstd: a block of a reserved type, %d bytes into the frame", c.at-3)
		}
		if err := c.skip(size); err != nil {
			return err
		}
		if header&1 != 0 {
			break
		}
	}
	if descriptor&0x04 != 0 {
		return c.skip(4) // the checksum
	}
	return nil
}
