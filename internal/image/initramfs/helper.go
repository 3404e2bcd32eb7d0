package initramfs

import (
	"debug/elf"
	"io"

	"github.com/nametag-boot/nametag/internal/image/helper"
)

// A Helper is the program that is put in.
type Helper struct {
	Machine elf.Machine
	Size    int64
	SHA256  string // hexadecimal

	src io.ReaderAt
}

// NewHelper reads a helper of size bytes, and makes sure that a kernel can run it with nothing around it; if not, the
// error is a *helper.Error. src has to stay as it is for as long as the helper is used.
func NewHelper(src io.ReaderAt, size int64) (*Helper, error) {
	program, err := helper.Inspect(src, size)
	if err != nil {
		return nil, err
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
