//go:build unix

package initramfs

import (
	"encoding/binary"
	"hash/crc32"
)

// crc is the sum that xz has behind a header.
func crc(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b))
}
