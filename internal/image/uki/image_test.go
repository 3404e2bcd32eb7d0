package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestAnImageIsRead(t *testing.T) {
	m := fake{parts: usual, machine: ARM64}.image(t)
	if m.Machine.String() != "arm64" || m.Signed() || len(m.Sections) != 2+len(usual) {
		t.Errorf("%v, signed %v, %d sections", m.Machine, m.Signed(), len(m.Sections))
	}
	if len(m.Profiles) != 2 || m.Profiles[1] != (Profile{ID: "reset-maintenance", Title: "Reset to maintenance mode"}) {
		t.Errorf("profiles %+v", m.Profiles)
	}
	lines := m.Find(".cmdline")
	if len(lines) != 2 || m.ProfileName(lines[0].Profile) != "base" || m.ProfileName(lines[1].Profile) != "reset-maintenance" {
		t.Fatalf("%+v", lines)
	}
	if text, err := m.Text(lines[1]); err != nil || text != "talos.platform=hcloud console=tty0 talos.experimental.wipe=system" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWhatIsNoImageIsRefusedAndSaidWhere(t *testing.T) {
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	section := func(n, field int) int { return fakeTable + n*sectionHeaderSize + field }
	const security = fakeOptional + optDirectories + 4 + directorySecurity*directorySize
	for _, c := range []struct {
		name  string
		spoil func([]byte) []byte
		want  string
	}{
		{"nothing", func([]byte) []byte { return nil }, "at byte 0x0: the file ends, after 0 bytes, within the DOS header"},
		{"another kind of file", func(b []byte) []byte { return append([]byte("\x7fELF"), b[4:]...) }, `at byte 0x0: no EFI program: it begins with "\x7fE"`},
		{"a PE header far away", put32(dosNewHeader, 0x7fffffff), "at byte 0x3c: the PE header cannot be at 0x7fffffff"},
		{"a PE header behind the end", put32(dosNewHeader, 0x80000), "at byte 0x80000: the file ends"},
		{"no PE header", put32(fakePE, 0), `at byte 0x40: no EFI program: "\x00\x00\x00\x00" stands here`},
		{"no sections", put16(fakePE+4+coffSections, 0), "at byte 0x46: 0 sections"},
		{"sixty thousand sections", put16(fakePE+4+coffSections, 60000), "at byte 0x46: 60000 sections"},
		{"more sections than the headers hold", put16(fakePE+4+coffSections, 100), "behind the headers' end"},
		{"a short optional header", put16(fakePE+4+coffOptionalSize, 8), "the optional header has 8 bytes"},
		{"a 32-bit image", put16(fakeOptional, 0x10b), "of the kind 0x10b"},
		{"a hundred data directories", put32(fakeOptional+optDirectories, 100), "100 data directories do not fit"},
		{"a strange alignment in the file", put32(fakeOptional+optFileAlignment, 513), "an alignment of 513 bytes in the file"},
		{"a strange alignment in memory", put32(fakeOptional+optSectionAlignment, 16), "an alignment of 16 bytes in memory"},
		{"gigantic headers", put32(fakeOptional+optHeadersSize, 1<<31), "headers of 2147483648 bytes"},
		{"headers longer than the file", put32(fakeOptional+optHeadersSize, 0xf0000), "headers of 983040 bytes in a file of"},
		{"cut off within the headers", func(b []byte) []byte { return b[:fakeTable+50] }, "within the section table"},
		{"cut off within a section", func(b []byte) []byte { return b[:len(b)-100] }, "section .cmdline is to end at"},
		{"a section within the headers", put32(section(2, secRawOffset), 0x100), "section .osrel is to begin at 0x100, within the headers"},
		{"a section at an address within the headers", put32(section(2, secVirtualAddress), 0x100), "section .osrel is to be at the address 0x100, within the headers"},
		{"a section of four gigabytes in memory", put32(section(2, secVirtualSize), 0xffffffff), "section .osrel is to end behind the 4 GiB"},
		{"sections that overlap in the file", put32(section(3, secRawOffset), 0x800), "overlap in the file"},
		{"sections that overlap in memory", put32(section(3, secVirtualAddress), 0x3001), "sections .osrel and .cmdline overlap in memory, at the address 0x3001"},
		{"no kernel", func(b []byte) []byte { return bytes.Replace(b, []byte(".linux"), []byte(".lin\x00\x00"), 1) }, "no unified kernel image"},
		{"certificates within a section", func(b []byte) []byte { return put32(security+4, 64)(put32(security, 0x600)(b)) }, "before the end of the sections"},
		{"gigantic certificates", func(b []byte) []byte { return put32(security+4, 1<<30)(put32(security, uint32(len(b)))(b)) }, "a certificate table of 1073741824 bytes"},
		{"certificates behind the end", func(b []byte) []byte { return put32(security+4, 64)(put32(security, uint32(len(b)))(b)) }, "within the certificate table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.spoil(fake{parts: usual}.bytes())
			m, err := Open(bytes.NewReader(b), int64(len(b)))
			var typed *Error
			if !errors.As(err, &typed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v; not %q", m, err, c.want)
			}
		})
	}
}

func TestACertificateTableThatIsBrokenIsAnError(t *testing.T) {
	entry := func(n uint32) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, n), 0, 2, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	}
	for name, c := range map[string]struct {
		table []byte
		want  string
	}{
		"an entry longer than the table": {entry(1000), "an entry of 1000 bytes in the 16 that are left"},
		"an entry of no bytes":           {entry(0), "an entry of 0 bytes"},
		"half an entry":                  {entry(16)[:4], "ends within an entry"},
	} {
		t.Run(name, func(t *testing.T) {
			b := fake{parts: usual, signature: c.table}.bytes()
			if _, err := Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
	b := append(fake{parts: usual, signature: entry(16)}.bytes(), "more"...)
	if _, err := Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "4 bytes behind the certificate table") {
		t.Errorf("%v", err)
	}
}

func TestTextHasABound(t *testing.T) {
	m := fake{parts: []part{{name: ".linux", content: strings.Repeat("x", maxText+1)}}}.image(t)
	if _, err := m.Text(m.Find(".linux")[0]); err == nil {
		t.Error("no error")
	}
}
