// Package whole puts a file or a folder in the place of another one as a whole or not at all: who is cut off at any
// moment, by a full disk, a signal or a power failure, leaves what was there or what is new.
//
// It keeps no state; its functions may be called concurrently.
package whole

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File writes a file as a whole or not at all: write fills a new one in the same folder, which takes the place of path
// once it is on the disk. A file that is there already keeps its mode and owner, and is unharmed by any failure; a new
// one gets mode. A symbolic link stays, what it leads to is replaced.
func File(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	path, old, err := target(path)
	if err != nil {
		return err
	}
	if old != nil {
		mode = old.Mode()
	}
	f, err := os.CreateTemp(filepath.Dir(path), asideName) // not with the file's name in it, which may be as long as a name can be
	if err != nil {
		return unnamed(err, path)
	}
	defer func() {
		if err != nil {
			err = unnamed(err, path)
			if left := errors.Join(ignoreClosed(f.Close()), os.Remove(f.Name())); left != nil {
				err = errors.Join(err, left) // else the error stays what it is
			}
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if old != nil {
		if err := keepOwner(f, old); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// asideName is how the names of what is not in its place yet begin.
const asideName = ".nametag-*"

// target is the file that is replaced where path is to be, and what is there now; nil where nothing is.
func target(path string) (string, fs.FileInfo, error) {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	} else if _, not := os.Lstat(path); not == nil {
		return "", nil, fmt.Errorf("%s is a link that leads nowhere: %w", path, err)
	}
	old, err := os.Stat(path)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return "", nil, fmt.Errorf("%s is there and is not a regular file", path)
	case err == nil:
		return path, old, nil
	case errors.Is(err, fs.ErrNotExist):
		return path, nil, nil
	}
	return "", nil, err
}

// CheckFile says whether File could write there, before any work is done for it.
func CheckFile(path string) error {
	path, _, err := target(path)
	if err != nil {
		return err
	}
	return writable(filepath.Dir(path))
}

// unnamed puts the name of the file that somebody asked for in the place of that of the one aside, which is gone by the
// time that he reads of it.
func unnamed(err error, path string) error {
	var at *fs.PathError
	if errors.As(err, &at) && errors.Is(err, at) && isAside(at.Path) {
		return &fs.PathError{Op: at.Op, Path: path, Err: at.Err}
	}
	var link *os.LinkError
	if errors.As(err, &link) && isAside(link.Old) {
		return &fs.PathError{Op: link.Op, Path: path, Err: link.Err}
	}
	return err
}

func isAside(path string) bool {
	aside, err := filepath.Match(asideName, filepath.Base(path))
	return err == nil && aside
}

// syncFolder puts a new name on the disk. It has its place either way, and some file systems do not know how.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil { //nolint:gosec // where the caller's file stands
		_ = d.Sync()
		_ = d.Close()
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
