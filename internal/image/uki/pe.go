package uki

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Where things stand in the headers: Microsoft's "PE Format", the sections "MS-DOS Stub", "COFF File Header", "Optional
// Header" and "Section Table". Offsets are from the start of the header that they are in.
const (
	dosHeaderSize = 64
	dosNewHeader  = 0x3c // where the offset of the PE signature stands

	coffHeaderSize   = 20
	coffMachine      = 0
	coffSections     = 2
	coffSymbols      = 8
	coffSymbolCount  = 12
	symbolSize       = 18
	coffOptionalSize = 16

	optMagic            = 0
	optInitializedSize  = 8
	optEntryPoint       = 16
	optSectionAlignment = 32
	optFileAlignment    = 36
	optImageSize        = 56
	optHeadersSize      = 60
	optChecksum         = 64
	optDirectories      = 108 // their number, and then the directories
	directorySize       = 8
	directorySecurity   = 4 // the only one that gives an offset in the file and not an address
	directoryDebug      = 6
	maxDirectories      = 16

	sectionHeaderSize = 40
	secVirtualSize    = 8
	secVirtualAddress = 12
	secRawSize        = 16
	secRawOffset      = 20
	secFlags          = 36

	flagInitializedData = 0x40
	flagRead            = 0x4000_0000

	debugEntrySize   = 28
	debugRawOffset   = 24 // the offset in the file of what the entry describes
	maxDebugEntries  = 64
	maxSections      = 1024    // Talos has about 20
	maxHeaders       = 1 << 20 // far more than that many sections need
	pageSize         = 4096
	maxFileAlignment = 64 << 10 // "a power of 2 between 512 and 64 K"
)

// Machine is the processor that an image is for.
type Machine uint16

// The machines that there are Hetzner servers of.
const (
	AMD64 Machine = 0x8664
	ARM64 Machine = 0xaa64
)

// String is the architecture's name in Go; a number for others.
func (m Machine) String() string {
	switch m {
	case AMD64:
		return "amd64"
	case ARM64:
		return "arm64"
	}
	return fmt.Sprintf("machine 0x%x", uint16(m))
}

// header is the file's beginning, up to the end of the section table.
type header struct {
	bytes       []byte
	coff        int // offsets of the headers in it
	optional    int
	table       int
	directories int // how many there are
	size        uint32
	sectionAlignment,
	fileAlignment uint32
}

func (h *header) at16(offset int) uint16 { return binary.LittleEndian.Uint16(h.bytes[offset:]) }

func (h *header) at32(offset int) uint32 { return binary.LittleEndian.Uint32(h.bytes[offset:]) }

func (h *header) put16(offset int, v uint16) { binary.LittleEndian.PutUint16(h.bytes[offset:], v) }

func (h *header) put32(offset int, v uint32)    { binary.LittleEndian.PutUint32(h.bytes[offset:], v) }
func (h *header) field(offset int) uint32       { return h.at32(h.optional + offset) }
func (h *header) setField(offset int, v uint32) { h.put32(h.optional+offset, v) }

// directory is the place of one of the data directories, and where that is written; at is 0 where there is none.
func (h *header) directory(n int) (place, size uint32, at int) {
	if n >= h.directories {
		return 0, 0, 0
	}
	at = h.optional + optDirectories + 4 + n*directorySize
	return h.at32(at), h.at32(at + 4), at
}

// read reads exactly n bytes at the offset.
func (m *Image) read(offset, n int64, what string) ([]byte, error) {
	if offset < 0 || n < 0 || offset+n > m.size {
		return nil, bad(offset, "the file ends, after %d bytes, within %s", m.size, what)
	}
	b := make([]byte, n)
	if _, err := m.reader.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, &Error{offset, "reading " + what, err}
	}
	return b, nil
}

// readHeader reads the headers up to the section table, which it includes.
func (m *Image) readHeader() error {
	dos, err := m.read(0, dosHeaderSize, "the DOS header")
	if err != nil {
		return err
	}
	if string(dos[:2]) != "MZ" {
		return bad(0, "no EFI program: it begins with %q, not with \"MZ\"", dos[:2])
	}
	start := int64(binary.LittleEndian.Uint32(dos[dosNewHeader:]))
	if start < 4 || start > maxHeaders {
		return bad(dosNewHeader, "the PE header cannot be at 0x%x", start)
	}
	b, err := m.read(start, 4+coffHeaderSize, "the PE header")
	if err != nil {
		return err
	}
	if string(b[:4]) != "PE\x00\x00" {
		return bad(start, "no EFI program: %q stands here, not \"PE\\0\\0\"", b[:4])
	}
	coff := b[4:]
	m.Machine = Machine(binary.LittleEndian.Uint16(coff[coffMachine:]))
	sections := int64(binary.LittleEndian.Uint16(coff[coffSections:]))
	if sections == 0 || sections > maxSections {
		return bad(start+4+coffSections, "%d sections; an image has 1 to %d", sections, maxSections)
	}
	h := &m.header
	h.coff = int(start) + 4
	h.optional = h.coff + coffHeaderSize
	optional := int(binary.LittleEndian.Uint16(coff[coffOptionalSize:]))
	if optional < optDirectories+4 {
		return bad(start+4+coffOptionalSize, "the optional header has %d bytes; the one of a 64-bit image has %d or more", optional, optDirectories+4)
	}
	h.table = h.optional + optional
	if h.bytes, err = m.read(0, int64(h.table)+sections*sectionHeaderSize, "the section table"); err != nil {
		return err
	}
	return m.checkHeader(optional)
}

func (m *Image) checkHeader(optional int) error {
	h := &m.header
	where := func(field int) int64 { return int64(h.optional + field) }
	if magic := h.at16(h.optional + optMagic); magic != 0x20b {
		return bad(where(optMagic), "the optional header is of the kind 0x%x; that of a 64-bit image is 0x20b (PE32+)", magic)
	}
	n := h.field(optDirectories)
	if n > maxDirectories || int(n)*directorySize > optional-optDirectories-4 {
		return bad(where(optDirectories), "%d data directories do not fit into the optional header", n)
	}
	h.directories = int(n)
	h.sectionAlignment, h.fileAlignment = h.field(optSectionAlignment), h.field(optFileAlignment)
	if !powerOfTwo(h.fileAlignment) || h.fileAlignment > maxFileAlignment {
		return bad(where(optFileAlignment), "an alignment of %d bytes in the file", h.fileAlignment)
	}
	if !powerOfTwo(h.sectionAlignment) || h.sectionAlignment < h.fileAlignment {
		return bad(where(optSectionAlignment), "an alignment of %d bytes in memory, and of %d in the file", h.sectionAlignment, h.fileAlignment)
	}
	h.size = h.field(optHeadersSize)
	switch {
	case h.size > maxHeaders:
		return bad(where(optHeadersSize), "headers of %d bytes", h.size)
	case int64(h.size) > m.size:
		return bad(where(optHeadersSize), "headers of %d bytes in a file of %d", h.size, m.size)
	case int(h.size) < len(h.bytes):
		return bad(where(optHeadersSize), "the section table ends at 0x%x, behind the headers' end at 0x%x", len(h.bytes), h.size)
	}
	return nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func (m *Image) readSections() error {
	h := &m.header
	for at := h.table; at < len(h.bytes); at += sectionHeaderSize {
		s := Section{
			Name:           strings.TrimRight(string(h.bytes[at:at+8]), "\x00"),
			VirtualSize:    h.at32(at + secVirtualSize),
			VirtualAddress: h.at32(at + secVirtualAddress),
			Size:           h.at32(at + secRawSize),
			Offset:         h.at32(at + secRawOffset),
			flags:          h.at32(at + secFlags),
		}
		copy(s.raw[:], h.bytes[at:])
		switch end := int64(s.Offset) + int64(s.Size); {
		case s.Size == 0:
		case end > m.size:
			return bad(int64(at), "section %s is to end at 0x%x, and the file ends at 0x%x", s.Name, end, m.size)
		case s.Offset < h.size:
			return bad(int64(at), "section %s is to begin at 0x%x, within the headers", s.Name, s.Offset)
		}
		if uint64(s.VirtualAddress)+s.span() > 1<<32 {
			return bad(int64(at), "section %s is to end behind the 4 GiB that an image can have", s.Name)
		}
		if s.VirtualAddress < h.size {
			return bad(int64(at), "section %s is to be at the address 0x%x, within the headers", s.Name, s.VirtualAddress)
		}
		s.fixed = !payload[s.Name] || m.refersInto(s)
		m.Sections = append(m.Sections, s)
	}
	if a, b, ok := overlap(m.Sections, func(s Section) (uint64, uint64) { return uint64(s.Offset), uint64(s.Size) }); ok {
		return bad(int64(b.Offset), "sections %s and %s overlap in the file", a.Name, b.Name)
	}
	if a, b, ok := overlap(m.Sections, func(s Section) (uint64, uint64) { return uint64(s.VirtualAddress), s.span() }); ok {
		return bad(-1, "sections %s and %s overlap in memory, at the address 0x%x", a.Name, b.Name, b.VirtualAddress)
	}
	return nil
}

// refersInto says whether the headers give an address within the section.
func (m *Image) refersInto(s Section) bool {
	within := func(address uint32) bool {
		return address >= s.VirtualAddress && uint64(address) < uint64(s.VirtualAddress)+s.span()
	}
	if within(m.header.field(optEntryPoint)) {
		return true
	}
	for n := range m.header.directories {
		if place, size, _ := m.header.directory(n); n != directorySecurity && size > 0 && within(place) {
			return true
		}
	}
	return false
}

// overlap finds two sections of which one begins before the other one's end.
func overlap(sections []Section, extent func(Section) (start, size uint64)) (a, b Section, found bool) {
	var present []Section
	for _, s := range sections {
		if _, size := extent(s); size > 0 {
			present = append(present, s)
		}
	}
	slices.SortStableFunc(present, func(a, b Section) int {
		x, _ := extent(a)
		y, _ := extent(b)
		return cmp.Compare(x, y)
	})
	for i := 1; i < len(present); i++ {
		start, size := extent(present[i-1])
		if next, _ := extent(present[i]); next < start+size {
			return present[i-1], present[i], true
		}
	}
	return a, b, false
}

// sectionsEnd is where the last section ends in the file.
func (m *Image) sectionsEnd() int64 {
	end := int64(m.header.size)
	for _, s := range m.Sections {
		if s.Size > 0 {
			end = max(end, int64(s.Offset)+int64(s.Size))
		}
	}
	return end
}
