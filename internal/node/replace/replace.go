//go:build linux

// Package replace writes a file whole or not at all: who reads it sees the old one, if there was one, or the new one,
// and never half of it.
//
// The new file is made beside its place and renamed. Its name there is a fixed one: there is one writer, and what a writer
// that was killed has left behind is overwritten rather than collected. What nametag writes is for everybody to read: a
// file's mode is 0644 and that of a folder that was missing 0755, whatever the umask.
package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// File writes a file that need not outlive a power cut. Nothing is synced: it is for /run, which is memory, and a disk
// that does not answer must not stop whoever has nothing to put on it.
func File(path string, text []byte) error {
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return put(path, text, func(*os.File) error { return nil })
}

// Durably writes a file that is on the disk when it returns: a power cut at any moment leaves the old file or the new one.
// Before the new one is in its place, it is prepared by what is given, for what a file needs beside its content.
func Durably(path string, text []byte, prepare ...func(*os.File)) error {
	dir := filepath.Dir(path)
	if err := makeFolder(dir); err != nil {
		return err
	}
	err := put(path, text, func(f *os.File) error {
		for _, do := range prepare {
			do(f)
		}
		return f.Sync() // the content before the name
	})
	if err != nil {
		return err
	}
	return syncFolder(dir)
}

// ext4Checkpoint is EXT4_IOC_CHECKPOINT (include/uapi/linux/ext4.h, Linux 5.14).
const ext4Checkpoint = 0x4004662b

// Settle has ext4 work off the journal of the file system that path is on, as far as this kernel can. What was written durably is
// in the journal until then, half a minute perhaps: after a power cut, whoever mounts the file system without it sees the
// old file. Another file system, or an older kernel, does not know the request: an [unix.ENOTTY].
func Settle(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return os.NewSyscallError("ioctl", unix.IoctlSetPointerInt(int(dir.Fd()), ext4Checkpoint, 0)) //nolint:gosec // a descriptor
}

// put makes the file aside, finishes it, and gives it its name.
func put(path string, text []byte, finish func(*os.File) error) (err error) {
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	defer func() {
		if err != nil {
			_ = os.Remove(aside)
		}
	}()
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // with O_EXCL no link is followed
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = finish(f)
	}
	if err = joined.Errors(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

// makeFolder makes a folder, and those above it. One that is there stays as it is.
func makeFolder(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch above := filepath.Dir(dir); {
	case errors.Is(err, fs.ErrExist): // if it is no folder, the next step says so
		return nil
	case errors.Is(err, fs.ErrNotExist) && above != dir:
		if err := makeFolder(above); err != nil {
			return err
		}
		return makeFolder(dir)
	case err != nil:
		return err
	}
	return os.Chmod(dir, 0o755)
}

// syncFolder puts the names in a folder on the disk. Some file systems have nothing to do for that, and say EINVAL
// (fsync(2)).
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return joined.Errors(err, d.Close())
}
