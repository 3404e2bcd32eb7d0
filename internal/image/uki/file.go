package uki

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OpenFile opens the image of that name. The caller closes the file.
func OpenFile(name string) (*Image, *os.File, error) {
	// Before it is opened: opening a pipe waits, and no context ends that.
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: it is not a regular file", name)
	}
	f, err := os.Open(name) //nolint:gosec // the caller's own choice
	if err != nil {
		return nil, nil, err
	}
	m, err := func() (*Image, error) {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		return Open(f, st.Size())
	}()
	if err != nil {
		_ = f.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, f, nil
}

// EditFile edits the image of the name in and writes it to out, which may be the same. What stands there is replaced in
// one step when all of the new image is on the disk, and keeps its mode and owner; until then, and where anything fails, it
// is as it was.
func EditFile(ctx context.Context, in, out string, e Edit) (*Result, error) {
	m, from, err := OpenFile(in)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	mode := fs.FileMode(0o644)
	if st, err := from.Stat(); err == nil {
		mode = st.Mode().Perm()
	}
	if target, err := filepath.EvalSymlinks(out); err == nil {
		out = target // a link stays one
	}
	old, err := os.Stat(out)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is not a regular file", out)
	case err == nil:
		mode = old.Mode().Perm()
	default:
		old = nil
	}
	to, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(to.Name()) //nolint:errcheck // renamed where all went well
	defer to.Close()
	result, err := m.Write(ctx, to, e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	if err := keepOwner(to, old); err != nil {
		return nil, err
	}
	if err := errors.Join(to.Chmod(mode), to.Sync(), to.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(to.Name(), out); err != nil {
		return nil, err
	}
	syncFolder(filepath.Dir(out))
	return result, nil
}

// keepOwner gives a file the owner and group of the one that it is to replace.
func keepOwner(f *os.File, old fs.FileInfo) error {
	if old == nil {
		return nil
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	want, ok := old.Sys().(*syscall.Stat_t)
	have, ok2 := now.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the file belongs to somebody else, and that cannot be kept: %w", err)
	}
	return nil
}

// syncFolder makes a new name last, where the file system can: the file itself is whole in any case.
func syncFolder(dir string) {
	f, err := os.Open(dir) //nolint:gosec // where the caller's file stands
	if err != nil {
		return
	}
	defer f.Close()
	_ = f.Sync()
}
