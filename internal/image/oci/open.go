package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The prefixes that say where an image is.
const (
	layoutPrefix  = "oci:"
	archivePrefix = "docker-archive:"
)

// Open finds the image of that name; see the package comment for the names. What it returns reads from there until the
// context ends.
func Open(ctx context.Context, where string, r Registry) (Artifact, error) {
	if dir, ok := strings.CutPrefix(where, layoutPrefix); ok {
		return openLayout(dir)
	}
	if file, ok := strings.CutPrefix(where, archivePrefix); ok {
		return openArchive(file)
	}
	st, err := os.Stat(where)
	switch {
	case err == nil && st.Mode().IsRegular():
		return openArchive(where)
	case err == nil && st.IsDir():
		return openLayout(where)
	case err != nil && isFile(where):
		return Artifact{}, err // and nobody is asked: without a host it would be an image of Docker Hub
	}
	a, err := r.open(ctx, where)
	if bad := (*name.ErrBadName)(nil); errors.As(err, &bad) {
		return Artifact{}, fmt.Errorf("%s is no file, no OCI layout and no image reference: %w", where, err)
	}
	return a, err
}

// isFile says whether that is how files are named, and images are not.
func isFile(where string) bool {
	return filepath.IsAbs(where) || strings.HasPrefix(where, "./") || strings.HasPrefix(where, "../") ||
		strings.HasSuffix(where, "/") || strings.HasSuffix(where, ".tar")
}

// openLayout reads the one image or index that the layout has; a list of images, one for each platform, is an index.
func openLayout(dir string) (Artifact, error) {
	fail := func(err error) (Artifact, error) { return Artifact{}, fmt.Errorf("OCI layout %s: %w", dir, err) }
	path, err := layout.FromPath(dir)
	if err != nil {
		return fail(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return fail(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fail(err)
	}
	if len(manifest.Manifests) == 0 {
		return fail(errors.New("it has no image"))
	}
	if only := manifest.Manifests[0]; len(manifest.Manifests) == 1 {
		if only.MediaType.IsIndex() {
			inner, err := index.ImageIndex(only.Digest)
			if err != nil {
				return fail(err)
			}
			return Artifact{Index: inner}, nil
		}
		image, err := index.Image(only.Digest)
		if err != nil {
			return fail(err)
		}
		return Artifact{Image: image}, nil
	}
	for _, d := range manifest.Manifests {
		if d.Platform == nil || !d.MediaType.IsImage() {
			return fail(fmt.Errorf("it has %d images, not all with a platform: choose one with a tool such as `skopeo copy`", len(manifest.Manifests)))
		}
	}
	return Artifact{Index: index}, nil
}

func openArchive(file string) (Artifact, error) {
	fail := func(err error) (Artifact, error) { return Artifact{}, fmt.Errorf("docker-archive %s: %w", file, err) }
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) }) //nolint:gosec // the caller's own choice
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fail(err)
		}
		return fail(fmt.Errorf("it is no such archive: %w", err))
	}
	if len(manifest) != 1 {
		return fail(fmt.Errorf("it has %d images, and it must have one", len(manifest)))
	}
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return fail(err)
	}
	return Artifact{Image: image}, nil
}

// open asks the registry.
func (r Registry) open(ctx context.Context, where string) (Artifact, error) {
	ref, err := r.reference(where)
	if err != nil {
		return Artifact{}, err
	}
	d, err := remote.Get(ref, r.options(ctx)...)
	if err != nil {
		return Artifact{}, refused(ref, err)
	}
	switch {
	case d.MediaType.IsIndex():
		index, err := d.ImageIndex()
		return Artifact{Index: index}, err
	case d.MediaType.IsImage():
		image, err := d.Image()
		return Artifact{Image: image}, err
	}
	return Artifact{}, fmt.Errorf("%s is no image: its media type is %q", ref, d.MediaType)
}
