package uki

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"
	"testing"
)

// withEdits is bytes with changes in them: each is a place and what is to stand there, in three bytes. A fuzzer that is given
// the changes, and not the file, gets through its work: what it finds is short, and soon made shorter.
func withEdits(b, edits []byte) []byte {
	b = bytes.Clone(b)
	for ; len(edits) >= 3 && len(b) > 0; edits = edits[3:] {
		b[int(binary.LittleEndian.Uint16(edits))%len(b)] = edits[2]
	}
	return b
}

// Whatever the file, reading it ends with an image or an error; and what can be edited stays sound.
func FuzzImage(f *testing.F) {
	var seeds [][]byte
	for i, seed := range []fake{
		{parts: usual},
		{parts: usual, machine: ARM64, debug: true, symbols: symbols, checksum: 1},
		{parts: usual[:6], signature: []byte{16, 0, 0, 0, 0, 2, 2, 0, 0x30, 6, 6, 1, 0, 0, 0, 0}, room: 3},
		{parts: []part{{name: ".linux", content: "kernel"}}},
	} {
		seeds = append(seeds, seed.bytes())
		f.Add(uint8(i), []byte{0x86, 0, 5}, uint16(5000))
	}
	// found is what a stub finds: the profile of a section that it does not look for means nothing.
	found := func(t *testing.T, m *Image) []string {
		for i := range m.Sections {
			if !payload[m.Sections[i].Name] {
				m.Sections[i].Profile = 0
			}
		}
		return contents(t, m, ".cmdline", ".initrd")
	}
	f.Fuzz(func(t *testing.T, which uint8, edits []byte, grow uint16) {
		b := withEdits(seeds[int(which)%len(seeds)], edits)
		m, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		content := string(make([]byte, grow))
		var to memory
		_, err = m.Write(context.Background(), &to, Edit{
			CommandLine:   appending("talos.hostname.wait=2m"),
			Initramfs:     replace(content),
			DropSignature: true,
		})
		if err != nil {
			return
		}
		after := open(t, to.b)
		for _, s := range after.Find(".initrd") {
			if got, err := io.ReadAll(after.Data(s)); err != nil || s.Len() > 0 && string(got) != content {
				t.Errorf("an initramfs of %d bytes, %v", len(got), err)
			}
		}
		if _, size, _ := m.header.directory(directoryDebug); size > 0 {
			return // it is amended, wherever it stands
		}
		before, now := found(t, m), found(t, after)
		if len(before) != len(now) {
			t.Errorf("%d sections, not %d", len(now), len(before))
		}
		slices.Sort(before)
		slices.Sort(now)
		for i := range min(len(before), len(now)) {
			if before[i] != now[i] {
				t.Errorf("%q became %q", before[i], now[i])
			}
		}
	})
}
