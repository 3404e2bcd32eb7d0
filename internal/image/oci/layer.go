package oci

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// A Layer is a layer in a file: compressed and digested once, however often it is written. It implements v1.Layer, and
// may be used by several goroutines.
type Layer struct {
	file      string
	digest    v1.Hash
	diffID    v1.Hash
	size      int64
	mediaType types.MediaType
}

var _ v1.Layer = (*Layer)(nil)

// NewLayer writes a gzip layer to a new file: the tar archive that fill makes. The same archive gives the same bytes
// whatever the Go release, for the compressor is a module of ours. The file is the caller's to remove.
func NewLayer(file string, mediaType types.MediaType, fill func(*tar.Writer) error) (_ *Layer, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the caller's own
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("writing a layer: %w", err)
		}
	}()
	packed, unpacked := sha256.New(), sha256.New()
	out := &counter{w: io.MultiWriter(f, packed)}
	z := gzip.NewWriter(out) // its header has no time and no name
	archive := tar.NewWriter(io.MultiWriter(z, unpacked))
	if err := fill(archive); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return &Layer{
		file: file, size: out.n, mediaType: mediaType,
		digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", packed.Sum(nil))},
		diffID: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", unpacked.Sum(nil))},
	}, nil
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Digest is that of the compressed layer.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is the digest of the uncompressed layer.
func (l *Layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Size is that of the compressed layer, in bytes.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType is what NewLayer was given.
func (l *Layer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed opens the file.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.file) }

// Uncompressed opens the file and unpacks it.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// Entry is one entry of an archive that is the same each time: it belongs to root and was made in 1970, and has no PAX
// header, unless its name is too long to do without.
func Entry(path string, mode, size int64) *tar.Header {
	h := &tar.Header{Name: path, Mode: mode, Size: size, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if strings.HasSuffix(path, "/") {
		h.Typeflag = tar.TypeDir
	}
	return h
}
