package uki

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	"github.com/nametag-boot/nametag/internal/image/whole"
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
	var result *Result
	err = whole.File(out, mode, func(to *os.File) error {
		var err error
		if result, err = m.Write(ctx, to, e); err != nil {
			return fmt.Errorf("%s: %w", in, err)
		}
		// Before it is replaced, should it be the same: not every system renames over an open file.
		return from.Close()
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}
