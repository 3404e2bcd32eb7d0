package extension

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// Spec is what an extension is made of, but for the helper.
type Spec struct {
	Talos   Talos
	Version string // of nametag; Talos lists it
}

// WriteRootfs writes the extension's files as a tar archive: the image's one layer, and what an imager profile's
// tarballPath takes.
func (s Spec) WriteRootfs(w io.Writer, h helper.Binary) error {
	archive := tar.NewWriter(w)
	if err := s.fill(archive, h); err != nil {
		return err
	}
	return archive.Close()
}

// fill writes the entries in the order of their names; every folder has one, for unpackers differ in what they make of
// a missing one.
func (s Spec) fill(archive *tar.Writer, h helper.Binary) error {
	m, err := s.Manifest()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(oci.Entry("manifest.yaml", 0o644, int64(len(m)))); err != nil {
		return err
	}
	if _, err := archive.Write(m); err != nil {
		return err
	}
	file := path.Join("rootfs", s.Talos.Path())
	for at := strings.IndexByte(file, '/'); at >= 0; {
		if err := archive.WriteHeader(oci.Entry(file[:at+1], 0o755, 0)); err != nil {
			return err
		}
		next := strings.IndexByte(file[at+1:], '/')
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if err := archive.WriteHeader(oci.Entry(file, 0o755, h.Size)); err != nil {
		return err
	}
	in, err := os.Open(h.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := io.Copy(archive, in)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Path, err)
	}
	if n != h.Size {
		return fmt.Errorf("%s has changed while it was read", h.Path)
	}
	return nil
}

// Image is the extension for one architecture. Its layer is written to a file in the folder scratch, which must outlive
// the image.
func (s Spec) Image(h helper.Binary, scratch string) (v1.Image, error) {
	layer, err := oci.NewLayer(filepath.Join(scratch, Name+"-"+h.Architecture+".tar.gz"), types.OCILayer,
		func(archive *tar.Writer) error { return s.fill(archive, h) })
	if err != nil {
		return nil, err
	}
	epoch := v1.Time{Time: time.Unix(0, 0).UTC()}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	if image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: h.Architecture, OS: "linux", Created: epoch, RootFS: v1.RootFS{Type: "layers"},
	}); err != nil {
		return nil, err
	}
	if image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: epoch, CreatedBy: "nametagctl extension"},
	}); err != nil {
		return nil, err
	}
	return mutate.Annotations(image, s.annotations()).(v1.Image), nil //nolint:errcheck,forcetypeassert // as documented
}

// Build is the extension for all the helpers: an image for one, an index for several. See Image for scratch.
func (s Spec) Build(helpers []helper.Binary, scratch string) (oci.Artifact, error) {
	var parts []mutate.IndexAddendum
	for _, h := range helpers {
		image, err := s.Image(h, scratch)
		if err != nil {
			return oci.Artifact{}, err
		}
		if len(helpers) == 1 {
			return oci.Artifact{Image: image}, nil
		}
		parts = append(parts, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: h.Architecture}},
		})
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), parts...)
	return oci.Artifact{Index: mutate.Annotations(index, s.annotations()).(v1.ImageIndex)}, nil //nolint:errcheck,forcetypeassert // as documented
}

// annotations are for people who look at it in a registry; Talos reads none of them.
func (s Spec) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       Name,
		"org.opencontainers.image.version":     s.Version,
		"org.opencontainers.image.description": strings.TrimSpace(description),
		"org.opencontainers.image.source":      source,
		"org.opencontainers.image.licenses":    licence,
	}
}
