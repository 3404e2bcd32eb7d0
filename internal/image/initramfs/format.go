package initramfs

import (
	"bytes"
	"fmt"
	"strings"
)

// Format is how an archive is compressed.
type Format uint8

// The formats that there are. All of them are what the kernel reads; the others that it reads are out of use.
const (
	Plain Format = iota // a cpio archive as it is
	Gzip
	XZ
	Zstd
	LZ4 // in the legacy format, the only one that the kernel reads
)

var formats = []struct{ name, magic string }{
	Plain: {"none", ""},
	Gzip:  {"gzip", "\x1f\x8b\x08"},
	XZ:    {"xz", "\xfd7zXZ\x00"},
	Zstd:  {"zstd", "\x28\xb5\x2f\xfd"},
	LZ4:   {"lz4", "\x02\x21\x4c\x18"},
}

// String is "none", "gzip", "xz", "zstd" or "lz4".
func (f Format) String() string {
	if int(f) < len(formats) {
		return formats[f].name
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// MarshalText is String, for JSON.
func (f Format) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// ParseFormat reads the word that String returns; the error lists the words.
func ParseFormat(s string) (Format, error) {
	var names []string
	for i, f := range formats {
		if f.name == s {
			return Format(i), nil
		}
		names = append(names, f.name)
	}
	return 0, fmt.Errorf("%q is no compression; choose %s", s, strings.Join(names, ", "))
}

// foreign is what may stand in an image's place, or in an image, and is not read here.
var foreign = []struct{ magic, name string }{
	{"070707", `a cpio archive in the old portable format: the kernel wants "cpio -H newc"`},
	{"\xc7\x71", `a binary cpio archive: the kernel wants "cpio -H newc"`},
	{"BZh", "bzip2, which is not read here: repack the archive with zstd"},
	{"\x5d\x00\x00", "lzma, which is not read here: repack the archive with xz or zstd"},
	{"\x89LZO", "lzo, which is not read here: repack the archive with zstd"},
	{"\x04\x22\x4d\x18", `an lz4 frame, which the kernel does not read: it wants "lz4 -l"`},
	{"\x1f\x8b", "gzip of an unknown method"},
	{"\x1f\x9e", "an old gzip, which is not read here: repack the archive with gzip"},
	{"MZ", "an EFI program (a UKI or a kernel): its .initrd is edited by nametagctl uki"},
	{"hsqs", "a squashfs image, not an initramfs"},
	{"\x7fELF", "an ELF program, not an initramfs"},
}

// detect says which format begins with these bytes, of which there are at least as many as the longest magic or the
// image has no more; aligned is whether they stand at a multiple of four.
func detect(head []byte, aligned bool) (Format, string) {
	if bytes.HasPrefix(head, []byte(magicNewc)) || bytes.HasPrefix(head, []byte(magicCRC)) {
		if !aligned {
			return 0, "a cpio archive that does not begin at a multiple of four: the kernel does not read it there"
		}
		return Plain, ""
	}
	for i, f := range formats {
		if f.magic != "" && bytes.HasPrefix(head, []byte(f.magic)) {
			return Format(i), ""
		}
	}
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return 0, f.name
		}
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		return 0, "a skippable zstd frame, as pzstd writes it: the kernel does not read it"
	}
	return 0, "neither a cpio archive nor a compression that is known"
}
