//go:build linux

package handover

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// isGo reports whether the program that a process runs was built by Go: it has a note of Go's with its build id. Without
// that note, it may be one all the same.
func (p procRoot) isGo(pid int) bool {
	fd, err := p.open(fmt.Sprintf("%d/exe", pid), unix.O_RDONLY)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "exe")
	defer f.Close()
	return hasGoNote(f)
}

// hasGoNote looks through the notes of a 64-bit ELF file (elf(5)) for one of Go's. The package debug/elf, and what it
// brings along, would be the largest part of the handover.
func hasGoNote(f io.ReaderAt) bool {
	const (
		elf64    = "\x7fELF\x02"
		typeNote = 4
		most     = 64 // program headers; those of Go have a dozen
	)
	var head [64]byte
	if n, _ := f.ReadAt(head[:], 0); n < len(head) || string(head[:5]) != elf64 {
		return false
	}
	at, size, count := int64(number(head[32:40])), int64(number(head[54:56])), int64(number(head[56:58]))
	for i := range min(count, most) {
		var part [56]byte
		if n, _ := f.ReadAt(part[:], at+i*size); n < len(part) || number(part[:4]) != typeNote {
			continue
		}
		notes := make([]byte, min(number(part[32:40]), 4096))
		if n, _ := f.ReadAt(notes, int64(number(part[8:16]))); goNote(notes[:n]) {
			return true
		}
	}
	return false
}

// goNote looks for a note with the owner "Go" (cmd/internal/buildid).
func goNote(notes []byte) bool {
	for len(notes) >= 12 {
		name, desc := number(notes[:4]), number(notes[4:8])
		notes = notes[12:]
		end := (name+3)&^3 + (desc+3)&^3
		if end > uint64(len(notes)) {
			return false
		}
		if name == 4 && string(notes[:4]) == "Go\x00\x00" {
			return true
		}
		notes = notes[end:]
	}
	return false
}

// number is an unsigned one of two, four or eight bytes, in this machine's order, which is that of its programs.
func number(b []byte) uint64 {
	switch len(b) {
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}
