package initramfs

import (
	"encoding/binary"
	"hash/crc32"
	"syscall"
)

// crc is the sum that xz has behind a header.
func crc(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b))
}

// owner is a file's, from what os.FileInfo.Sys returns.
func owner(sys any) [2]uint32 {
	st := sys.(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}
