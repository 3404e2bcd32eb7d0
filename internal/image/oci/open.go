package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A place is a word in front of a name that says where an image is. They are those of skopeo, buildah and podman.
type place struct {
	name string
	open func(rest string) (Artifact, error)
	// instead says what to do where it cannot be read; open is nil then.
	instead string
}

func places() []place {
	return []place{
		{name: "oci", open: openLayout},
		{name: "oci-archive", open: openLayoutArchive},
		{name: "docker-archive", open: openArchive},
		{name: "dir", open: openDir},
		{
			name:    "containers-storage",
			instead: "podman's own store is not read: write the image into a file by `podman save --format oci-archive -o installer.tar IMAGE`, and give oci-archive:installer.tar",
		},
		{
			name:    "docker-daemon",
			instead: "the Docker daemon is not asked: write the image into a file by `docker save -o installer.tar IMAGE`, and give docker-archive:installer.tar",
		},
		{name: "ostree", instead: "an ostree repository is not read: copy the image by `skopeo copy ostree:… oci:installer`, and give oci:installer"},
		{name: "sif", instead: "a SIF file is not read: copy the image by `skopeo copy sif:… oci:installer`, and give oci:installer"},
	}
}

// A NameError says that a name of an image is none, before anything was opened or asked.
type NameError struct {
	Name   string
	Reason string
}

func (e *NameError) Error() string { return e.Name + ": " + e.Reason }

// Open finds the image of that name; see the package comment for the names. What it returns reads from there until the
// context ends. A name that cannot be one is a *NameError.
func Open(ctx context.Context, where string, r Registry) (Artifact, error) {
	for _, t := range places() {
		rest, ok := strings.CutPrefix(where, t.name+":")
		switch {
		case !ok:
		case t.open == nil:
			return Artifact{}, &NameError{where, t.instead}
		case rest == "" || rest == ":":
			return Artifact{}, &NameError{where, "a file or folder belongs behind " + t.name + ":"}
		default:
			a, err := t.open(rest)
			if err != nil {
				err = fmt.Errorf("%s:%s: %w", t.name, rest, err)
			}
			return a, err
		}
	}
	where = strings.TrimPrefix(where, "docker://") // a registry, as skopeo has it
	st, err := os.Stat(where)
	switch {
	case err == nil && st.Mode().IsRegular():
		return openFile(where)
	case err == nil && st.IsDir():
		a, err := openLayout(where)
		if err != nil {
			err = fmt.Errorf("OCI layout %s: %w", where, err)
		}
		return a, err
	case err != nil && isFile(where):
		return Artifact{}, err // and nobody is asked: without a host it would be an image of Docker Hub
	}
	a, err := r.open(ctx, where)
	if bad := (*name.ErrBadName)(nil); errors.As(err, &bad) {
		return Artifact{}, &NameError{where, fmt.Sprintf("it is no file, no OCI layout and no image reference: %v", err)}
	}
	return a, err
}

// isFile says whether that is how files are named, and images are not.
func isFile(where string) bool {
	return filepath.IsAbs(where) || strings.HasPrefix(where, "./") || strings.HasPrefix(where, "../") ||
		strings.HasSuffix(where, "/") || strings.HasSuffix(where, ".tar")
}

// openFile opens an archive of which only the file's name is known: what is in it tells the kind.
func openFile(file string) (Artifact, error) {
	files, err := readMembers(file)
	if err != nil {
		return Artifact{}, fmt.Errorf("%s: %w", file, err)
	}
	kind, open := "docker-archive", openArchive
	if _, ok := files["manifest.json"]; !ok {
		if _, ok := files["index.json"]; ok {
			kind, open = "oci-archive", openLayoutArchive
		}
	}
	a, err := open(file)
	if err != nil {
		err = fmt.Errorf("%s:%s: %w", kind, file, err)
	}
	return a, err
}

// withTag parts PATH:TAG where PATH is there. A path may have colons of its own.
func withTag(where string) (path, tag string) {
	if _, err := os.Stat(where); err == nil {
		return where, ""
	}
	for i := strings.LastIndexByte(where, ':'); i > 0; i = strings.LastIndexByte(where[:i], ':') {
		if _, err := os.Stat(where[:i]); err == nil {
			return where[:i], where[i+1:]
		}
	}
	return where, ""
}

// openLayout opens DIR or DIR:TAG.
func openLayout(where string) (Artifact, error) {
	dir, tag := withTag(where)
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return Artifact{}, fmt.Errorf("it is no OCI layout: %w", err)
	}
	return fromIndex(folder{dir, layoutBlob}, tag)
}

// openLayoutArchive opens FILE or FILE:TAG.
func openLayoutArchive(where string) (Artifact, error) {
	file, tag := withTag(where)
	files, err := readMembers(file)
	if err != nil {
		return Artifact{}, err
	}
	return fromIndex(tarred{file, files}, tag)
}

// openDir opens what skopeo writes to "dir:".
func openDir(dir string) (Artifact, error) {
	s := folder{dir, skopeoBlob}
	raw, err := s.file("manifest.json")
	if err != nil {
		return Artifact{}, err
	}
	var kind struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return Artifact{}, fmt.Errorf("manifest.json: %w", err)
	}
	if kind.MediaType.IsIndex() || len(kind.Manifests) > 0 {
		return Artifact{}, errors.New("it is a list of images, whose parts have names of their own in such a folder; copy it by `skopeo copy --all dir:… oci:installer`, and give oci:installer")
	}
	i, err := image(s, raw)
	return Artifact{Image: i}, err
}

// refName is the annotation by which a layout's index names an image.
const refName = "org.opencontainers.image.ref.name"

// fromIndex is the image or index that a layout has under a tag; with no tag the one that it has. A list of images, one
// for each platform, is an index.
func fromIndex(s store, tag string) (Artifact, error) {
	raw, err := s.file("index.json")
	if err != nil {
		return Artifact{}, err
	}
	top, err := newIndex(s, raw)
	if err != nil {
		return Artifact{}, fmt.Errorf("index.json: %w", err)
	}
	all := top.manifest.Manifests
	var names []string
	for _, d := range all {
		if n := d.Annotations[refName]; n != "" {
			names = append(names, n)
		}
	}
	if tag != "" {
		all = slices.DeleteFunc(slices.Clone(all), func(d v1.Descriptor) bool { return d.Annotations[refName] != tag })
		if len(all) == 0 {
			return Artifact{}, fmt.Errorf("it has no image named %q%s", tag, itHas(names))
		}
	}
	switch {
	case len(all) == 0:
		return Artifact{}, errors.New("it has no image")
	case len(all) == 1:
		return artifact(s, all[0])
	}
	for _, d := range all {
		if d.Platform == nil || !d.MediaType.IsImage() {
			return Artifact{}, fmt.Errorf("it has %d images, not all with a platform: choose one by its tag, as in oci:DIR:TAG%s", len(all), itHas(names))
		}
	}
	if tag != "" {
		return Artifact{}, fmt.Errorf("it has %d images named %q", len(all), tag)
	}
	return Artifact{Index: top}, nil
}

// itHas lists names at the end of a sentence.
func itHas(names []string) string {
	if len(names) == 0 {
		return "; its images have no names"
	}
	slices.Sort(names)
	const most = 8
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return "; it has " + strings.Join(names, ", ") + more
}

// openArchive opens what docker save writes: FILE or FILE:REFERENCE.
func openArchive(where string) (Artifact, error) {
	file, tag := withTag(where)
	files, err := readMembers(file)
	if err != nil {
		return Artifact{}, err
	}
	opener := func() (io.ReadCloser, error) { return os.Open(file) } //nolint:gosec // the caller's own choice
	if m := files["manifest.json"]; m.size > maxManifest {
		return Artifact{}, fmt.Errorf("its manifest.json has %d bytes: that is no manifest", m.size)
	}
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return Artifact{}, fmt.Errorf("it is no such archive: %w", err)
	}
	var named *name.Tag
	var names []string
	for _, d := range manifest {
		names = append(names, d.RepoTags...)
		if m := files[path.Clean(d.Config)]; m.size > maxManifest {
			return Artifact{}, fmt.Errorf("a configuration in it has %d bytes: that is none", m.size)
		}
	}
	switch {
	case tag != "":
		t, err := name.NewTag(tag)
		if err != nil {
			return Artifact{}, err
		}
		named = &t
	case len(manifest) != 1:
		return Artifact{}, fmt.Errorf("it has %d images: choose one by its name, as in docker-archive:FILE:NAME:TAG%s", len(manifest), itHas(names))
	}
	i, err := tarball.Image(opener, named)
	if err != nil && named != nil {
		err = fmt.Errorf("it has no image named %q%s: %w", tag, itHas(names), err)
	}
	return Artifact{Image: i}, err
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
