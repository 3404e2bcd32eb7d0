package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxManifest is what a manifest, an index or a configuration has at most. Registries refuse more than 4 MiB.
const maxManifest = 4 << 20

// A store has blobs by their digest: a layout's folder, an archive of one, or a folder of skopeo's. What is read of it to
// the end is what the digest says, or an error.
type store interface {
	// open opens a blob, and tells its size.
	open(digest v1.Hash) (io.ReadCloser, int64, error)
	// file reads a file of that name, such as index.json.
	file(name string) ([]byte, error)
}

// folder is a store whose blobs stand in a folder.
type folder struct {
	dir  string
	blob func(v1.Hash) string // where in it
}

// layoutBlob is where a blob stands in an OCI layout.
func layoutBlob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// skopeoBlob is where skopeo's "dir:" has it.
func skopeoBlob(h v1.Hash) string { return h.Hex }

func (f folder) open(h v1.Hash) (io.ReadCloser, int64, error) {
	b, err := os.Open(filepath.Join(f.dir, filepath.FromSlash(f.blob(h))))
	if err != nil {
		return nil, 0, err
	}
	st, err := b.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", b.Name())
	}
	if err != nil {
		return nil, 0, errors.Join(err, b.Close())
	}
	return b, st.Size(), nil
}

func (f folder) file(name string) ([]byte, error) {
	b, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return readSmall(b, name)
}

// tarred is a store in a tar archive.
type tarred struct {
	path  string
	files members
}

func (t tarred) open(h v1.Hash) (io.ReadCloser, int64, error) {
	m, ok := t.files[layoutBlob(h)]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", layoutBlob(h), fs.ErrNotExist)
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, 0, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, m.offset, m.size), f}, m.size, nil
}

func (t tarred) file(name string) ([]byte, error) {
	m, ok := t.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSmall(io.NewSectionReader(f, m.offset, m.size), name)
}

// readSmall reads what is a manifest or the like.
func readSmall(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("%s has more than %d bytes: that is no manifest and no configuration", name, maxManifest)
	}
	return b, err
}

// small reads a blob that is a manifest or the like.
func small(s store, h v1.Hash) ([]byte, error) {
	r, _, err := s.open(h)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := readSmall(r, h.String())
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); h.Algorithm != "sha256" || hex.EncodeToString(sum[:]) != h.Hex {
		return nil, fmt.Errorf("%s: its content has another digest: it is damaged", h)
	}
	return b, nil
}

// verified compares what is read with its digest at its end.
type verified struct {
	io.ReadCloser
	sum  hash.Hash
	want v1.Hash
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.sum.Write(p[:n]) // never fails
	if errors.Is(err, io.EOF) && hex.EncodeToString(v.sum.Sum(nil)) != v.want.Hex {
		err = fmt.Errorf("%s: its content has another digest: it is damaged", v.want)
	}
	return n, err
}

// storedLayer is a layer in a store. It implements partial.CompressedLayer.
type storedLayer struct {
	in   store
	desc v1.Descriptor
}

func (l storedLayer) Digest() (v1.Hash, error) { return l.desc.Digest, nil }

func (l storedLayer) Size() (int64, error) { return l.desc.Size, nil }

func (l storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

func (l storedLayer) Compressed() (io.ReadCloser, error) {
	r, _, err := l.in.open(l.desc.Digest)
	if err != nil {
		return nil, err
	}
	return &verified{r, sha256.New(), l.desc.Digest}, nil
}

// storedImage is an image in a store. It implements partial.CompressedImageCore.
type storedImage struct {
	in        store
	mediaType types.MediaType
	raw       []byte
	manifest  *v1.Manifest
}

// image is the image whose manifest that is.
func image(s store, raw []byte) (v1.Image, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	mediaType := manifest.MediaType
	if mediaType == "" {
		mediaType = types.OCIManifestSchema1 // where it need not say
	}
	return partial.CompressedToImage(&storedImage{s, mediaType, raw, manifest})
}

func (i *storedImage) MediaType() (types.MediaType, error) { return i.mediaType, nil }

func (i *storedImage) RawManifest() ([]byte, error) { return i.raw, nil }

func (i *storedImage) RawConfigFile() ([]byte, error) { return small(i.in, i.manifest.Config.Digest) }

func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if h == i.manifest.Config.Digest {
		return storedLayer{i.in, i.manifest.Config}, nil
	}
	for _, d := range i.manifest.Layers {
		if d.Digest == h {
			return storedLayer{i.in, d}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s: %w", h, fs.ErrNotExist)
}

// storedIndex is an index in a store. It implements v1.ImageIndex.
type storedIndex struct {
	in       store
	raw      []byte
	manifest *v1.IndexManifest
}

func newIndex(s store, raw []byte) (*storedIndex, error) {
	manifest, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return &storedIndex{s, raw, manifest}, nil
}

func (i *storedIndex) MediaType() (types.MediaType, error) {
	if i.manifest.MediaType == "" {
		return types.OCIImageIndex, nil
	}
	return i.manifest.MediaType, nil
}

func (i *storedIndex) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(i.raw))
	return h, err
}

func (i *storedIndex) Size() (int64, error) { return int64(len(i.raw)), nil }

func (i *storedIndex) IndexManifest() (*v1.IndexManifest, error) { return i.manifest.DeepCopy(), nil }

func (i *storedIndex) RawManifest() ([]byte, error) { return i.raw, nil }

func (i *storedIndex) Image(h v1.Hash) (v1.Image, error) {
	raw, err := small(i.in, h)
	if err != nil {
		return nil, err
	}
	return image(i.in, raw)
}

func (i *storedIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	raw, err := small(i.in, h)
	if err != nil {
		return nil, err
	}
	return newIndex(i.in, raw)
}

// artifact is the image or the index that a descriptor of a store leads to.
func artifact(s store, d v1.Descriptor) (Artifact, error) {
	raw, err := small(s, d.Digest)
	if err != nil {
		return Artifact{}, err
	}
	if d.MediaType.IsIndex() {
		i, err := newIndex(s, raw)
		if err != nil {
			return Artifact{}, err
		}
		return Artifact{Index: i}, nil
	}
	i, err := image(s, raw)
	return Artifact{Image: i}, err
}
