package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

// maxMembers is how many files an archive of an image has at most: one for each layer, and a few beside them.
const maxMembers = 1 << 12

// A member is where a file stands in an archive.
type member struct{ offset, size int64 }

// members are the files of an archive, by their path. Of two with one path the first counts, as for whoever reads it from
// the front.
type members map[string]member

// readMembers reads the headers of a tar archive. It refuses files that are longer than the archive has bytes for: whoever
// reads a sparse one reads zeros without end, and no tool makes them for an image.
func readMembers(file string) (members, error) {
	f, err := os.Open(file) //nolint:gosec // the caller's own choice
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	all := members{}
	for r, n := tar.NewReader(f), 0; ; n++ {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("it is no such archive: %w", err)
		case n == maxMembers:
			return nil, fmt.Errorf("it has more than %d files: that is no image", maxMembers)
		case len(h.Name) > maxPath || len(h.Linkname) > maxPath:
			return nil, fmt.Errorf("a file in it has a name of %d bytes: that is no image", max(len(h.Name), len(h.Linkname)))
		case h.Typeflag == tar.TypeDir:
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > st.Size()-at || h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" {
			return nil, fmt.Errorf("%s in it is sparse, or cut off: it is to have %d bytes, and %d are left: that is no image", path.Clean(h.Name), h.Size, st.Size()-at)
		}
		name := path.Clean(h.Name)
		if _, twice := all[name]; !twice && h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink {
			all[name] = member{at, h.Size}
		}
	}
}
