//go:build linux

package qemu

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pierrec/lz4/v4"

	"github.com/nametag-boot/nametag/internal/image/whole"
)

// Kernel is the file for QEMU's -kernel: the uncompressed vmlinux, which QEMU starts at its PVH entry, so that no
// emulated processor has to unpack it; or the bzImage as it is, where its packing is none that we know. On arm64 Debian's
// kernel is not packed.
func (d Deps) Kernel() (string, error) {
	image, err := d.Vmlinuz()
	if err != nil || d.Arch != AMD64 {
		return image, err
	}
	b, err := os.ReadFile(image)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(d.Cache, fmt.Sprintf("vmlinux-%x", sum[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	elf, err := unpackKernel(b)
	if errors.Is(err, errPacking) {
		return image, nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", image, err)
	}
	// Two processes may make the same one.
	return path, whole.File(path, 0o644, func(f *os.File) error {
		_, err := f.Write(elf)
		return err
	})
}

// Vmlinuz is the kernel as its package has it: what UEFI starts.
func (d Deps) Vmlinuz() (string, error) {
	release, err := d.Release()
	if err != nil {
		return "", err
	}
	return filepath.Join(d.Root, "boot/vmlinuz-"+release), nil
}

var errPacking = errors.New("unknown packing")

// unpackKernel takes the kernel out of a bzImage. Its place stands in the setup header (the kernel's
// Documentation/arch/x86/boot.rst): setup_sects at 0x1f1, payload_offset and payload_length at 0x248, protocol 2.08.
func unpackKernel(image []byte) ([]byte, error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("not a bzImage")
	}
	start := uint64(image[0x1f1])
	if start == 0 {
		start = 4
	}
	start = (start+1)*512 + uint64(binary.LittleEndian.Uint32(image[0x248:]))
	size := uint64(binary.LittleEndian.Uint32(image[0x24c:]))
	if start+size > uint64(len(image)) || size < 8 {
		return nil, errors.New("the payload ends behind the image")
	}
	payload := image[start : start+size]
	// The last four bytes are the unpacked size (scripts/Makefile.lib, size_append).
	want := binary.LittleEndian.Uint32(payload[size-4:])
	payload = payload[:size-4]
	if !bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}) { // LZ4, legacy frame
		return nil, errPacking
	}
	elf, err := io.ReadAll(lz4.NewReader(bytes.NewReader(payload)))
	if err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	if uint64(len(elf)) != uint64(want) {
		return nil, fmt.Errorf("unpacked to %d bytes instead of %d", len(elf), want)
	}
	return elf, nil
}
