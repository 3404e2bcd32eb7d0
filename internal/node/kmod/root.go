//go:build linux

package kmod

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// root is a directory that is taken for "/": no symbolic link leads out of it, as
// in chroot(2). An image whose /lib is a link to /usr/lib is read rightly.
type root struct {
	dir   *os.File
	label string // for messages, before a path within the root
}

// openRoot opens a directory as a root.
func openRoot(dir, label string) (*root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "open", File: dir, Err: err}
	}
	if label == "" && dir != "/" {
		label = strings.TrimSuffix(dir, "/")
	}
	return &root{os.NewFile(uintptr(fd), dir), label}, nil
}

func (r *root) close() error { return r.dir.Close() }

// open opens a regular file within the root for reading.
func (r *root) open(name string) (*os.File, error) {
	f, err := r.openat(name, unix.O_NONBLOCK) // lest a FIFO block
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("not a regular file but %v", info.Mode().Type())
	}
	if err != nil {
		return nil, joined.Errors(err, f.Close())
	}
	return f, nil
}

func (r *root) openat(name string, flags uint64) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// EAGAIN: a rename somewhere in the tree at this moment (openat2(2)).
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(int(r.dir.Fd()), path.Join("/", name)[1:], how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), r.label+name), nil
		case (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && tries < 16:
		default:
			return nil, err
		}
	}
}

// isDir reports whether name is a directory.
func (r *root) isDir(name string) bool {
	f, err := r.openat(name, unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// list returns the names in a directory, at most a few.
func (r *root) list(name string) []string {
	f, err := r.openat(name, unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	names, _ := f.Readdirnames(16) // for a message only
	_ = f.Close()
	return names
}
