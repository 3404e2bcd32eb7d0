//go:build unix

package whole

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// writable says whether files can be made in a folder.
func writable(dir string) error {
	if err := unix.Access(dir+"/.", unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "writing into", Path: dir, Err: err}
	}
	return nil
}

// keepOwner gives f the owner and group of another file.
func keepOwner(f *os.File, old fs.FileInfo) error {
	want, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if have, ok := now.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the file belongs to somebody else, and that cannot be kept: %w", err)
	}
	return nil
}
