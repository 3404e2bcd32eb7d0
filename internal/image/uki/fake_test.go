package uki

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A part is a section of a made-up image.
type part struct {
	name    string
	content string
	virtual uint32 // VirtualSize; 0: the content's length
	address uint32 // 0: the next page
	flags   uint32 // 0: data
}

// A fake is a made-up image with a stub of two sections.
type fake struct {
	parts     []part
	machine   Machine
	symbols   string // a table of symbols behind the sections
	signature []byte // a certificate table
	checksum  uint32
	debug     bool // the stub's data has a debug directory, which describes something at its end
	room      int  // for further section headers
}

const (
	fakeFileAlignment    = 512
	fakeSectionAlignment = 4096
	fakePE               = 0x40
	fakeOptional         = fakePE + 4 + coffHeaderSize
	fakeTable            = fakeOptional + 112 + 16*directorySize
)

// symbols is a table of no symbols, and behind it that of their names, which begins with its length.
const symbols = "\x0b\x00\x00\x00symbols"

var usual = []part{
	{name: ".osrel", content: "ID=talos\nVERSION_ID=v1.12.7\n"},
	{name: ".cmdline", content: "talos.platform=hcloud console=tty0"},
	{name: ".initrd", content: "the initramfs"},
	{name: ".uname", content: "6.18.0-talos"},
	{name: ".sbat", content: "sbat,1\n"},
	{name: ".linux", content: "MZ the kernel", virtual: 0x5000, flags: 0x60000020},
	{name: ".profile", content: "ID=main\nTITLE=Talos\n"},
	{name: ".pcrsig", content: `{"sha256":[]}`},
	{name: ".profile", content: "ID=reset-maintenance\nTITLE=\"Reset to maintenance mode\"\n"},
	{name: ".cmdline", content: "talos.platform=hcloud console=tty0 talos.experimental.wipe=system\x00\n\x00"},
}

// bytes is the image as a file.
func (f fake) bytes() []byte {
	parts := append([]part{
		{name: ".text", content: "code", address: 0x1000, flags: 0x60000020},
		{name: ".data", content: string(make([]byte, 64)) + "debugging", address: 0x2000},
	}, f.parts...)
	if f.machine == 0 {
		f.machine = AMD64
	}
	headers := int(align(uint64(fakeTable+(len(parts)+f.room)*sectionHeaderSize), fakeFileAlignment))
	h := header{bytes: make([]byte, headers), coff: fakePE + 4, optional: fakeOptional, table: fakeTable, directories: 16}
	copy(h.bytes, "MZ")
	h.put32(dosNewHeader, fakePE)
	copy(h.bytes[fakePE:], "PE\x00\x00")
	h.put16(h.coff+coffMachine, uint16(f.machine))
	h.put16(h.coff+coffSections, uint16(len(parts)))
	h.put16(h.coff+coffOptionalSize, fakeTable-fakeOptional)
	h.put16(h.optional, 0x20b)
	h.setField(optEntryPoint, 0x1000)
	h.setField(optSectionAlignment, fakeSectionAlignment)
	h.setField(optFileAlignment, fakeFileAlignment)
	h.setField(optHeadersSize, uint32(headers))
	h.setField(optChecksum, f.checksum)
	h.setField(optDirectories, 16)
	var body bytes.Buffer
	address := uint64(0x3000)
	for i, p := range parts {
		at := h.table + i*sectionHeaderSize
		if p.address == 0 {
			p.address = uint32(address)
		}
		if p.virtual == 0 {
			p.virtual = uint32(len(p.content))
		}
		if p.flags == 0 {
			p.flags = flagInitializedData | flagRead
		}
		content := append([]byte(p.content), make([]byte, -len(p.content)&(fakeFileAlignment-1))...)
		if p.name == ".data" && f.debug {
			_, _, field := h.directory(directoryDebug)
			h.put32(field, p.address)
			h.put32(field+4, debugEntrySize)
			binary.LittleEndian.PutUint32(content[20:], p.address+64)
			binary.LittleEndian.PutUint32(content[debugRawOffset:], uint32(headers+body.Len()+64))
		}
		copy(h.bytes[at:], p.name)
		h.put32(at+secVirtualSize, p.virtual)
		h.put32(at+secVirtualAddress, p.address)
		h.put32(at+secRawSize, uint32(len(content)))
		h.put32(at+secRawOffset, uint32(headers+body.Len()))
		h.put32(at+secFlags, p.flags)
		if p.flags&flagInitializedData != 0 {
			h.setField(optInitializedSize, h.field(optInitializedSize)+uint32(len(content)))
		}
		body.Write(content)
		address = align(max(address, uint64(p.address)+uint64(p.virtual)), fakeSectionAlignment)
		h.setField(optImageSize, uint32(address))
	}
	if f.symbols != "" {
		h.put32(h.coff+coffSymbols, uint32(headers+body.Len()))
		body.WriteString(f.symbols)
	}
	if f.signature != nil {
		body.Write(make([]byte, -(headers+body.Len())&7))
		_, _, field := h.directory(directorySecurity)
		h.put32(field, uint32(headers+body.Len()))
		h.put32(field+4, uint32(len(f.signature)))
		body.Write(f.signature)
	}
	return append(h.bytes, body.Bytes()...)
}

// file is the image in a file.
func (f fake) file(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vmlinuz.efi")
	if err := os.WriteFile(name, f.bytes(), 0o640); err != nil {
		t.Fatal(err)
	}
	return name
}

func (f fake) image(t testing.TB) *Image {
	t.Helper()
	return open(t, f.bytes())
}

func open(t testing.TB, b []byte) *Image {
	t.Helper()
	m, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if n := int(at) + len(b) - len(m.b); n > 0 {
		m.b = append(m.b, make([]byte, n)...)
	}
	return copy(m.b[at:], b), nil
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) { return bytes.NewReader(m.b).ReadAt(b, at) }

// edit edits the image in memory.
func edit(t testing.TB, m *Image, e Edit) (*Image, *Result, []byte) {
	t.Helper()
	var to memory
	result, err := m.Write(t.Context(), &to, e)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(to.b)) != result.Size {
		t.Errorf("%d bytes, not the %d that were told", len(to.b), result.Size)
	}
	return open(t, to.b), result, to.b
}

// replace is an editor that puts another initramfs in.
func replace(content string) InitramfsEditor {
	return func(_ context.Context, w io.Writer, _ *io.SectionReader) error {
		_, err := io.WriteString(w, content)
		return err
	}
}
