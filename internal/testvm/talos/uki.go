//go:build linux

package talos

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/nametag-boot/nametag/internal/testvm/qemu"
)

// UKI makes a boot one of a unified kernel image, as Talos 1.10 and later have it: it is a qemu.Scenario's Image. The
// image is made without nametag, of systemd's stub, Debian's kernel and the OS's initramfs. Before it boots, edit changes
// the file.
func UKI(edit func(ctx context.Context, file string) error) func(context.Context, qemu.Deps, qemu.Parts) (string, error) {
	return func(ctx context.Context, d qemu.Deps, parts qemu.Parts) (string, error) {
		image, err := Unify(ctx, d, parts)
		if err != nil {
			return "", err
		}
		return image, edit(ctx, image)
	}
}

// Unify makes a unified kernel image as objcopy does, or where the linker's tools of this machine know only the other
// architecture, as the specification says.
func Unify(ctx context.Context, d qemu.Deps, parts qemu.Parts) (string, error) {
	out := filepath.Join(parts.Dir, "vmlinuz.efi")
	line := filepath.Join(parts.Dir, "cmdline")
	if err := os.WriteFile(line, []byte(parts.CommandLine), 0o600); err != nil {
		return "", err
	}
	release := filepath.Join(parts.Dir, "os-release")
	if err := os.WriteFile(release, []byte("ID=stand-in\n"), 0o600); err != nil {
		return "", err
	}
	// The initramfs stands before the kernel: it cannot grow without a move of that.
	contents := []struct{ name, file string }{{".osrel", release}, {".cmdline", line}, {".initrd", parts.Initramfs}, {".linux", parts.Kernel}}
	stub, err := pe.Open(d.Stub())
	if err != nil {
		return "", err
	}
	defer stub.Close() //nolint:errcheck // it was only read
	last := stub.Sections[len(stub.Sections)-1]
	address := page(int64(last.VirtualAddress) + int64(last.VirtualSize))
	var arguments []string
	for _, c := range contents {
		st, err := os.Stat(c.file)
		if err != nil {
			return "", err
		}
		arguments = append(arguments, "--add-section", c.name+"="+c.file, "--change-section-vma", fmt.Sprintf("%s=0x%x", c.name, address))
		address = page(address + st.Size())
	}
	if d.Arch == qemu.AMD64 {
		output, err := exec.CommandContext(ctx, "objcopy", append(arguments, d.Stub(), out)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("objcopy (package binutils): %w: %s", err, output)
		}
		return out, nil
	}
	b, err := os.ReadFile(d.Stub())
	if err != nil {
		return "", err
	}
	for _, c := range contents {
		if b, err = addSection(b, c.name, c.file); err != nil {
			return "", err
		}
	}
	return out, os.WriteFile(out, b, 0o600)
}

func page(n int64) int64 { return (n + 4095) &^ 4095 }

// addSection puts a section at the end of an image, which has room in its headers for it.
func addSection(image []byte, name, file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	last := f.Sections[len(f.Sections)-1]
	optional := f.OptionalHeader.(*pe.OptionalHeader64)
	raw := slices.Concat(image[:last.Offset+last.Size], content, make([]byte, -len(content)&int(optional.FileAlignment-1)))
	header := pe.SectionHeader32{
		VirtualSize:      uint32(len(content)),
		VirtualAddress:   uint32(page(int64(last.VirtualAddress) + int64(last.VirtualSize))),
		SizeOfRawData:    uint32(len(raw)) - last.Offset - last.Size,
		PointerToRawData: last.Offset + last.Size,
		Characteristics:  pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ,
	}
	copy(header.Name[:], name)
	coff := int(binary.LittleEndian.Uint32(raw[0x3c:])) + 4
	table := coff + 20 + int(f.SizeOfOptionalHeader)
	binary.LittleEndian.PutUint16(raw[coff+2:], uint16(len(f.Sections)+1))
	binary.LittleEndian.PutUint32(raw[coff+20+56:], uint32(page(int64(header.VirtualAddress)+int64(len(content)))))
	if _, err := binary.Encode(raw[table+40*len(f.Sections):], binary.LittleEndian, header); err != nil {
		return nil, err
	}
	return raw, nil
}
