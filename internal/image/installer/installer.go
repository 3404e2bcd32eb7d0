package installer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// Kind is what kind of file is amended.
type Kind string

// The kinds that there are.
const (
	Initramfs Kind = "initramfs"
	UKI       Kind = "uki"
)

// boots is what an installer may have, by the name in usr/install/ARCHITECTURE.
var boots = []struct {
	name string
	kind Kind
}{
	{"initramfs.xz", Initramfs},
	{"vmlinuz.efi", UKI},
	{"vmlinuz.efi.signed", UKI},
}

// An Editor writes an amended copy of the file in, for an architecture, to the new file out.
type Editor func(ctx context.Context, in, out, architecture string) (Outcome, error)

// Outcome is what an Editor did.
type Outcome struct {
	Changed  bool     // false: the file is as it is to be already, and what was written does not count
	Warnings []string // what a person must know of the amended file
}

// Options are what Amend needs.
type Options struct {
	Edit map[Kind]Editor
	// Architectures are those that the result has; empty: all that the image has, every one of which must be known.
	Architectures []string
	// Scratch is a folder for files as large as all that is amended, twice. It must outlive the result.
	Scratch string
	// Limits are those of the artifact: of all its layers together.
	Limits limit.Limits
	// Say is told what goes on, a line each. It may be nil.
	Say func(string)
}

// File is what became of one.
type File struct {
	Path    string `json:"path"` // in the image
	Kind    Kind   `json:"kind"`
	Before  int64  `json:"before"` // bytes
	After   int64  `json:"after"`
	Changed bool   `json:"changed"`
}

// Part is what became of one architecture's image.
type Part struct {
	Architecture string `json:"architecture"`
	Files        []File `json:"files"`
	Layers       int    `json:"layers"` // of the result
}

// Report is what Amend did.
type Report struct {
	Parts    []Part   `json:"parts"`
	Warnings []string `json:"warnings,omitempty"`
}

// Changed says whether the artifact became another one.
func (r Report) Changed() bool {
	return slices.ContainsFunc(r.Parts, func(p Part) bool {
		return slices.ContainsFunc(p.Files, func(f File) bool { return f.Changed })
	})
}

// Error says what is wrong with an installer image.
type Error struct {
	Platform string // of the image in an index; may be empty
	Reason   string
	Remedy   string // what to do; may be empty
	Err      error  // the cause; may be nil
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Platform != "" {
		s = e.Platform + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Amend returns the artifact with nametag in it: the image, or each architecture's image of the index. What it returns
// reads from the artifact and from the scratch folder.
func Amend(ctx context.Context, a oci.Artifact, o Options) (oci.Artifact, Report, error) {
	var r Report
	if o.Say == nil {
		o.Say = func(string) {}
	}
	budget := &limit.Budget{Limits: o.Limits}
	ctx, cancel := o.Limits.WithTime(ctx)
	defer cancel()
	if a.Image != nil {
		platform, err := oci.Platform(a.Image)
		if err != nil {
			return a, r, err
		}
		image, err := o.amend(ctx, a.Image, platform, budget, &r)
		return oci.Artifact{Image: image}, r, err
	}
	index, err := o.index(ctx, a.Index, budget, &r)
	return oci.Artifact{Index: index}, r, err
}

// attestation marks what BuildKit puts into an index beside each image: statements on the image of a digest, which
// become statements on no image.
const attestation = "vnd.docker.reference.type"

func (o Options) index(ctx context.Context, from v1.ImageIndex, budget *limit.Budget, r *Report) (v1.ImageIndex, error) {
	manifest, err := from.IndexManifest()
	if err != nil {
		return nil, err
	}
	var parts []mutate.IndexAddendum
	var found []string
	for i := range manifest.Manifests {
		d := manifest.Manifests[i]
		if d.Annotations[attestation] != "" {
			r.Warnings = append(r.Warnings, fmt.Sprintf("left out %s: it attests to an image that is another one now", d.Digest))
			continue
		}
		if d.Platform == nil || !d.MediaType.IsImage() {
			return nil, &Error{Reason: fmt.Sprintf("the index has %s (%s), which is no image for a platform", d.Digest, d.MediaType)}
		}
		if len(o.Architectures) > 0 && !slices.Contains(o.Architectures, d.Platform.Architecture) {
			continue
		}
		found = append(found, d.Platform.Architecture)
		image, err := from.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		if image, err = o.amend(ctx, image, d.Platform, budget, r); err != nil {
			return nil, err
		}
		parts = append(parts, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: d.Platform, Annotations: d.Annotations, URLs: d.URLs},
		})
	}
	for _, a := range o.Architectures {
		if !slices.Contains(found, a) {
			return nil, &Error{Reason: "the index has no image for " + a}
		}
	}
	if len(parts) == 0 {
		return nil, &Error{Reason: "the index has no images"}
	}
	if !r.Changed() && len(parts) == len(manifest.Manifests) {
		return from, nil
	}
	mediaType, err := from.MediaType() // the manifest itself need not say
	if err != nil {
		return nil, err
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, mediaType), parts...)
	if len(manifest.Annotations) > 0 {
		index = mutate.Annotations(index, manifest.Annotations).(v1.ImageIndex) //nolint:errcheck,forcetypeassert // as documented
	}
	return index, nil
}

// amend adds a layer to one image.
func (o Options) amend(ctx context.Context, image v1.Image, platform *v1.Platform, budget *limit.Budget, r *Report) (v1.Image, error) {
	where := ""
	architectures := helper.Architectures()
	// The imager of Talos 1.9 names no architecture: then the files tell.
	if platform != nil && platform.Architecture != "" {
		where = platform.String()
		if !slices.Contains(architectures, platform.Architecture) {
			return nil, &Error{
				Platform: where, Reason: "there is no nametag for this architecture",
				Remedy: "choose those of " + strings.Join(architectures, " and ") + " by --arch",
			}
		}
		architectures = []string{platform.Architecture}
	}
	var wanted []string
	for _, a := range architectures {
		for _, b := range boots {
			wanted = append(wanted, at(a, b.name))
		}
	}
	tree, err := oci.ReadTree(ctx, image, o.Scratch, wanted, budget, func(layer, of int) {
		o.Say(fmt.Sprintf("%sreading layer %d of %d", prefix(where), layer, of))
	})
	if err != nil {
		return nil, &Error{Platform: where, Reason: "reading the image", Err: err}
	}
	part, entries, err := o.edit(ctx, tree, where, architectures, r)
	if err != nil {
		return nil, err
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		part.Layers = len(layers)
		r.Parts = append(r.Parts, part)
		return image, nil
	}
	amended, err := o.layer(image, entries)
	if err != nil {
		return nil, &Error{Platform: where, Reason: "making the layer", Err: err}
	}
	part.Layers = len(layers) + 1
	if part.Layers == 2 {
		r.Warnings = append(r.Warnings, prefix(where)+"the result has exactly two layers, and of those Talos' imager drops the second: never give it to the imager as a base installer")
	}
	r.Parts = append(r.Parts, part)
	return amended, nil
}

func at(architecture, name string) string { return path.Join("usr/install", architecture, name) }

func prefix(where string) string {
	if where == "" {
		return ""
	}
	return where + ": "
}

// entry is a file of the new layer.
type entry struct {
	file    *oci.File
	content string // a file on this machine
	size    int64
}

// edit amends every file that the image boots from. Two names of one file are one file.
func (o Options) edit(ctx context.Context, tree *oci.Tree, where string, architectures []string, r *Report) (Part, []entry, error) {
	var part Part
	var entries []entry
	done := map[string]bool{}
	for _, architecture := range architectures {
		for _, b := range boots {
			name := at(architecture, b.name)
			f, err := tree.Find(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return part, nil, &Error{Platform: where, Reason: "looking for what it boots", Err: err}
			}
			if part.Architecture != "" && part.Architecture != architecture {
				return part, nil, &Error{Reason: "the image does not say for which architecture it is, and boots both " + part.Architecture + " and " + architecture}
			}
			part.Architecture = architecture
			if len(o.Architectures) > 0 && !slices.Contains(o.Architectures, architecture) {
				return part, nil, &Error{Reason: "the image is for " + architecture}
			}
			if done[f.Path] {
				continue
			}
			done[f.Path] = true
			e, report, err := o.one(ctx, tree, f, b.kind, architecture, r)
			if err != nil {
				return part, nil, &Error{Platform: where, Reason: "/" + name, Err: err}
			}
			part.Files = append(part.Files, report)
			if report.Changed {
				entries = append(entries, e)
			}
		}
	}
	if len(part.Files) == 0 {
		return part, nil, &Error{
			Platform: where, Reason: "the image has no initramfs.xz and no vmlinuz.efi in /usr/install",
			Remedy: "it is no installer of Talos; an installer-base has none of them",
		}
	}
	return part, entries, nil
}

func (o Options) one(ctx context.Context, tree *oci.Tree, f *oci.File, kind Kind, architecture string, r *Report) (entry, File, error) {
	report := File{Path: f.Path, Kind: kind, Before: f.Size, After: f.Size}
	in, err := tree.Copy(ctx, f)
	if err != nil {
		return entry{}, report, err
	}
	defer os.Remove(in) //nolint:errcheck // the folder goes in the end
	o.Say(fmt.Sprintf("amending /%s", f.Path))
	out := in + ".new"
	outcome, err := o.Edit[kind](ctx, in, out, architecture)
	if err != nil || !outcome.Changed {
		return entry{}, report, err
	}
	report.Changed = true
	for _, w := range outcome.Warnings {
		r.Warnings = append(r.Warnings, fmt.Sprintf("/%s: %s", f.Path, w))
	}
	st, err := os.Stat(out)
	if err != nil {
		return entry{}, report, err
	}
	report.After = st.Size()
	return entry{f, out, st.Size()}, report, nil
}

// layer appends a layer of the files. They keep their owners, modes and times. Their folders are not in it: those are the
// image's own, and stay as they are.
func (o Options) layer(image v1.Image, entries []entry) (v1.Image, error) {
	mediaType, err := image.MediaType()
	if err != nil {
		return nil, err
	}
	layerType := types.DockerLayer
	if mediaType == types.OCIManifestSchema1 {
		layerType = types.OCILayer
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.file.Path, b.file.Path) })
	layer, err := oci.NewLayer(entries[0].content+".layer", layerType, func(archive *tar.Writer) error {
		for _, e := range entries {
			h := oci.Entry(e.file.Path, e.file.Mode, e.size)
			h.Uid, h.Gid, h.ModTime = e.file.UID, e.file.GID, e.file.ModTime.Truncate(time.Second)
			h.Format = tar.FormatUnknown // the file's own owner may need more than ustar has
			if err := add(archive, h, e.content); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: layerType,
		// The time of the image itself: the same inputs give the same digest.
		History: v1.History{Created: config.Created, CreatedBy: "nametagctl installer"},
	})
}

// add copies a file into an archive and removes it.
func add(archive *tar.Writer, h *tar.Header, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(archive, in); err != nil {
		return err
	}
	return os.Remove(file)
}
