package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// A Helper is the program that is put in.
type Helper struct {
	Machine elf.Machine
	Size    int64
	SHA256  string // hexadecimal

	src io.ReaderAt
}

// NewHelper reads a helper of size bytes, and makes sure that a kernel can run it with nothing around it: a static ELF
// program. src has to stay as it is for as long as the helper is used.
func NewHelper(src io.ReaderAt, size int64) (*Helper, error) {
	if size > math.MaxUint32 {
		return nil, errors.New("too large for an initramfs")
	}
	program, err := elf.NewFile(io.NewSectionReader(src, 0, size))
	if err != nil {
		return nil, fmt.Errorf("not an ELF program: %w", err)
	}
	if program.Type != elf.ET_EXEC && program.Type != elf.ET_DYN {
		return nil, fmt.Errorf("not an ELF program that can be run: its type is %s", program.Type)
	}
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, errors.New("linked dynamically: it needs libraries that an initramfs does not have; build it with CGO_ENABLED=0")
	}
	h := &Helper{Machine: program.Machine, Size: size, src: src}
	if h.SHA256, err = hash(h.open()); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Helper) open() io.Reader { return io.NewSectionReader(h.src, 0, h.Size) }

// MachineName is what people call a processor: amd64, arm64, or what ELF calls it.
func MachineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_NONE:
		return "unknown"
	}
	return m.String()
}
