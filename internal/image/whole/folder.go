package whole

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder makes a folder as a whole or not at all: fill fills a new one beside it, which takes the place of dir once it is
// on the disk. What was at dir goes with all that is in it. Its files get the modes of files that everybody may read.
func Folder(dir string, fill func(dir string) error) (err error) {
	dir = filepath.Clean(dir)
	aside, err := os.MkdirTemp(filepath.Dir(dir), asideName)
	if err != nil {
		return unnamed(err, dir)
	}
	lost := false // the old folder is in aside, and nowhere else
	defer func() {
		if !lost {
			err = errors.Join(err, os.RemoveAll(aside))
		}
	}()
	made := filepath.Join(aside, "new")
	if err := fill(made); err != nil {
		return err
	}
	if err := settle(made); err != nil {
		return err
	}
	_, err = os.Lstat(dir)
	there := err == nil
	switch {
	case there:
		err = exchange(made, dir)
	default:
		err = os.Rename(made, dir)
	}
	if there && errors.Is(err, errors.ErrUnsupported) {
		// A folder cannot be renamed over one that has files: the old one steps aside first. For a moment there is none.
		old := filepath.Join(aside, "old")
		if err := os.Rename(dir, old); err != nil {
			return err
		}
		if err := os.Rename(made, dir); err != nil {
			back := os.Rename(old, dir)
			lost = back != nil
			return errors.Join(err, back)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	syncFolder(filepath.Dir(dir))
	return nil
}

// settle gives the files below dir the modes of files, not of programs, and puts them on the disk.
func settle(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path) //nolint:gosec // ours
		if err != nil {
			return err
		}
		defer f.Close()
		if d.IsDir() {
			_ = f.Sync() // some file systems do not know how
			return nil
		}
		if err := f.Chmod(0o644); err != nil {
			return err
		}
		return f.Sync()
	})
}
