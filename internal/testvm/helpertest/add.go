//go:build linux

package helpertest

import (
	"context"
	"os"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
)

// Add puts a helper into an initramfs as users do, and writes that to another file.
func Add(ctx context.Context, from, to, helper string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	image, err := initramfs.Read(ctx, src, size(src), nil, nil)
	if err != nil {
		return err
	}
	program, err := os.Open(helper)
	if err != nil {
		return err
	}
	defer program.Close()
	made, err := initramfs.NewHelper(program, size(program))
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = image.Add(ctx, out, made, initramfs.Options{})
	return err
}

func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}
