package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/nametag-boot/nametag/internal/image/limit"
)

const (
	maxLinks = 40   // as many as the kernel follows (MAXSYMLINKS)
	maxPath  = 4096 // bytes of a path that can be opened (PATH_MAX)
)

// A Tree is the files that an image's layers come to, one over the other: whiteouts, hard links and symbolic links are
// what an unpacker makes of them (the OCI image specification's layer.md). It is for one goroutine.
type Tree struct {
	layers   []v1.Layer // the lowest first
	versions map[string][]*File
	budget   *limit.Budget
	scratch  string
	wanted   map[string]bool
}

// File is a regular file of a Tree.
type File struct {
	Path     string // with no leading slash; symbolic links on the way are followed
	Mode     int64  // permissions
	UID, GID int
	ModTime  time.Time
	Size     int64

	kind    byte
	link    string // of a link: its target
	layer   int
	ordinal int    // the number of its header in the layer
	hidden  bool   // an upper layer took the name away
	spooled string // a copy of the content
}

// ReadTree reads the names in all layers of an image, the topmost first; progress, which may be nil, is told which. Of
// regular files that are wanted by their very paths the content is copied to the folder scratch on the way. What that
// costs is taken from the budget, and so is what Copy copies; a nil one is a fresh one.
func ReadTree(ctx context.Context, image v1.Image, scratch string, wanted []string, budget *limit.Budget, progress func(layer, of int)) (*Tree, error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	if budget == nil {
		budget = new(limit.Budget)
	}
	t := &Tree{layers: layers, versions: map[string][]*File{}, scratch: scratch, wanted: map[string]bool{}, budget: budget}
	for _, p := range wanted {
		t.wanted[p] = true
	}
	over := cover{gone: map[string]bool{}, opaque: map[string]bool{}}
	for i := len(layers) - 1; i >= 0; i-- {
		if progress != nil {
			progress(len(layers)-i, len(layers))
		}
		if err := t.read(ctx, i, over); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return t, nil
}

// cover is what the layers above hide of those below.
type cover struct {
	gone   map[string]bool // these names, and all below them
	opaque map[string]bool // all below these folders
}

func (c cover) hides(name string) bool {
	if c.gone[name] {
		return true
	}
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		if dir := name[:i]; c.gone[dir] || c.opaque[dir] {
			return true
		}
	}
	return c.opaque["."]
}

// walk calls each for every entry of a layer, until it says that it is enough.
func (t *Tree) walk(ctx context.Context, layer int, each func(ordinal int, h *tar.Header, content io.Reader) (more bool, err error)) error {
	in, err := t.layers[layer].Uncompressed()
	if err != nil {
		return err
	}
	defer in.Close()
	archive := tar.NewReader(&metered{cancellableReader{in, ctx}, t.budget})
	for ordinal := 0; ; ordinal++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// What is behind the archive's end belongs to the layer's digest, which the end of the stream checks.
			_, err = io.Copy(io.Discard, &metered{in, t.budget})
			return err
		}
		if err != nil {
			return err
		}
		if more, err := each(ordinal, h, archive); err != nil || !more {
			return err
		}
	}
}

// metered takes what is read from a budget.
type metered struct {
	r      io.Reader
	budget *limit.Budget
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if over := m.budget.Unpack(int64(n)); over != nil {
		return n, over
	}
	return n, err
}

// admit takes an entry from the budget.
func (t *Tree) admit(h *tar.Header) error {
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return fmt.Errorf("an entry with a name of %d bytes, which nothing could unpack", max(len(h.Name), len(h.Linkname)))
	}
	if err := t.budget.Entry(); err != nil {
		return err
	}
	if err := t.budget.Name(len(h.Name) + len(h.Linkname)); err != nil {
		return err
	}
	return t.budget.Walk(int64(strings.Count(h.Name, "/")) + limit.Steps(h.Name))
}

// clean is the path of an entry below the root, whatever it says.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t *Tree) read(ctx context.Context, layer int, over cover) error {
	below := cover{gone: map[string]bool{}, opaque: map[string]bool{}}
	err := t.walk(ctx, layer, func(ordinal int, h *tar.Header, content io.Reader) (bool, error) {
		if err := t.admit(h); err != nil {
			return false, err
		}
		name := clean(h.Name)
		if name == "" {
			return true, nil
		}
		dir, base := path.Split(name)
		dir = path.Clean(dir)
		if base == ".wh..wh..opq" {
			below.opaque[dir] = true
			return true, nil
		}
		if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
			below.gone[path.Join(dir, hidden)] = true
			return true, nil
		}
		f := &File{
			Path: name, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, ModTime: h.ModTime, Size: h.Size,
			kind: h.Typeflag, link: h.Linkname, layer: layer, ordinal: ordinal, hidden: over.hides(name),
		}
		if h.Typeflag != tar.TypeDir {
			// In the place of a folder it takes away what the layers below have in there.
			below.opaque[name] = true
		}
		if f.kind == tar.TypeGNUSparse {
			f.kind = tar.TypeReg
		}
		if f.kind == tar.TypeReg && t.wanted[name] && !f.hidden && t.visible(name) == nil {
			if err := t.spool(f, content); err != nil {
				return false, err
			}
		}
		t.add(f)
		return true, nil
	})
	if err != nil {
		return err
	}
	for name := range below.gone {
		over.gone[name] = true
	}
	for name := range below.opaque {
		over.opaque[name] = true
	}
	return nil
}

// add puts a version behind those of the layers above, and in front of an earlier one of its own layer, which it
// replaces.
func (t *Tree) add(f *File) {
	all := t.versions[f.Path]
	for i, v := range all {
		if v.layer == f.layer {
			all = append(all[:i:i], append([]*File{f}, all[i:]...)...)
			t.versions[f.Path] = all
			return
		}
	}
	t.versions[f.Path] = append(all, f)
}

// visible is the version of a name that an unpacked image has; nil if none.
func (t *Tree) visible(name string) *File {
	for _, v := range t.versions[name] {
		if !v.hidden {
			return v
		}
	}
	return nil
}

// Find is the regular file that a path leads to. Where there is none the error matches fs.ErrNotExist.
func (t *Tree) Find(name string) (*File, error) {
	asked := name
	fail := func(err error) (*File, error) { return nil, &fs.PathError{Op: "find", Path: "/" + asked, Err: err} }
	name = clean(name)
next:
	for range maxLinks {
		f := t.visible(name)
		if f == nil {
			// One of its folders may be a link.
			for i, c := range name {
				if c != '/' {
					continue
				}
				if dir := t.visible(name[:i]); dir != nil && dir.kind == tar.TypeSymlink {
					name = path.Join(t.target(dir), name[i+1:])
					continue next
				}
			}
			return fail(fs.ErrNotExist)
		}
		switch f.kind {
		case tar.TypeReg:
			return f, nil
		case tar.TypeSymlink:
			name = t.target(f)
		case tar.TypeLink:
			same, err := t.linked(f)
			if err != nil {
				return fail(err)
			}
			return same, nil
		default:
			return fail(errors.New("is not a regular file"))
		}
	}
	return fail(errors.New("too many symbolic links"))
}

func (t *Tree) target(link *File) string {
	if path.IsAbs(link.link) {
		return clean(link.link)
	}
	return clean(path.Join(path.Dir(link.Path), link.link))
}

// linked is the file that a hard link shares its content with, under the link's own name. It is one that was there when
// the link was made, whatever became of its name above.
func (t *Tree) linked(f *File) (*File, error) {
	at := f
	for range maxLinks {
		var of *File
		for _, v := range t.versions[clean(at.link)] {
			if v.layer < at.layer || v.layer == at.layer && v.ordinal < at.ordinal {
				of = v
				break
			}
		}
		switch {
		case of == nil:
			return nil, fmt.Errorf("is a hard link to /%s, which is not there", clean(at.link))
		case of.kind == tar.TypeReg:
			same := *of
			same.Path = f.Path
			return &same, nil
		case of.kind != tar.TypeLink:
			return nil, fmt.Errorf("is a hard link to /%s, which is not a regular file", of.Path)
		}
		at = of
	}
	return nil, errors.New("too many hard links")
}

// Copy is the content of a file that Find found, as a file in the scratch folder. It belongs to the Tree: it is not to
// be changed.
func (t *Tree) Copy(ctx context.Context, f *File) (string, error) {
	if f.spooled != "" {
		return f.spooled, nil
	}
	err := t.walk(ctx, f.layer, func(ordinal int, _ *tar.Header, content io.Reader) (bool, error) {
		if ordinal < f.ordinal {
			return true, nil
		}
		return false, t.spool(f, content)
	})
	if err != nil {
		return "", fmt.Errorf("reading /%s: %w", f.Path, err)
	}
	if f.spooled == "" {
		return "", fmt.Errorf("reading /%s: the layer has changed meanwhile", f.Path)
	}
	return f.spooled, nil
}

func (t *Tree) spool(f *File, content io.Reader) (err error) {
	out, err := os.CreateTemp(t.scratch, "file-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// A sparse file is longer than what its archive has of it.
	if _, err := io.Copy(out, &metered{content, t.budget}); err != nil {
		return err
	}
	f.spooled = out.Name()
	return nil
}
