//go:build linux

// Package start starts one initramfs after the other as the kernel would start each, in namespaces of its own, and looks
// at the process of its init before that has run its first instruction. What a helper in front of it has left behind, or
// has lost, is then the difference to the same initramfs without the helper.
//
// The look is by ptrace, from outside: the init may be any program. What the kernel itself makes of its command line, and
// that the first process of the machine may be started so, is for boots to show.
package start

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Tree is an unpacked initramfs.
type Tree struct {
	Name  string
	Files []File // the upper before the lower; folders come by themselves
	// Runs is a file that the init makes when it runs as it should, with this content; "": it is not run.
	Runs, Says string
}

// A File is one entry of a tree. Exactly one of From, Link and Text says what it is; none: a folder.
type File struct {
	Path string // with no leading slash
	From string // a file of the store; two of one are hard links to one another
	Link string // a symbolic link's target
	Text string // an executable text
}

// Way is how the helper stands in front of the init.
type Way string

// The ways.
const (
	Without Way = "without" // there is no helper
	AsInit  Way = "as init" // as nametagctl initramfs add puts it
	ByPath  Way = "rdinit"  // at Helper, where the kernel is told to run it
)

// Helper is where the helper stands, with Way ByPath and in the store.
const (
	Helper      = "usr/lib/firmware/nametag/nametag"
	StoreHelper = "nametag"
)

// The names of an initramfs with the helper as /init.
const (
	initName = "init"
	nextName = "init.next"
)

// Unpack makes the tree at root, from the store, which is on the same file system. It returns what the kernel has to run.
func (t Tree) Unpack(root, store string, way Way) (run string, err error) {
	helper := File{Path: Helper, From: StoreHelper} // also where nobody runs it: it is the start that is looked at
	for _, f := range append([]File{helper}, t.Files...) {
		if err := f.unpack(root, store); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{"dev", "root"} { // the kernel's own, with every initramfs
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil { //nolint:gosec // a guest's
			return "", err
		}
	}
	switch way {
	case AsInit:
		if err := standInFront(root); err != nil {
			return "", err
		}
		return "/" + initName, File{Path: initName, From: StoreHelper}.unpack(root, store)
	case ByPath:
		return "/" + Helper, nil
	}
	return "/" + initName, nil
}

// standInFront gives /init its other name: a link goes on as it is, a program as a copy, since it may have other names.
func standInFront(root string) error {
	from, to := filepath.Join(root, initName), filepath.Join(root, nextName)
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return os.Rename(from, to)
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // opened for reading
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Remove(from))
}

func (f File) unpack(root, store string) error {
	at := filepath.Join(root, f.Path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // a guest's
		return err
	}
	switch {
	case f.From != "":
		return os.Link(filepath.Join(store, f.From), at)
	case f.Link != "":
		return os.Symlink(f.Link, at)
	case f.Text != "":
		return os.WriteFile(at, []byte(f.Text), 0o755) //nolint:gosec // it is executed
	}
	return os.MkdirAll(at, 0o755) //nolint:gosec // a guest's
}

// shape is every entry of the tree that a process could find: its kind, its mode, its target, its size.
func shape(root string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		size, target := st.Size, ""
		if e.IsDir() {
			size = 0
		}
		if e.Type()&fs.ModeSymlink != 0 {
			target, _ = os.Readlink(path)
		}
		name, _ := filepath.Rel(root, path)
		found["/"+name] = describe(st.Mode, size, target)
		return nil
	})
	return found, err
}
