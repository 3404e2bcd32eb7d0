package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/oci"
)

// imageDir is a command as a container image, an OCI layout for its architectures: nametagctl for pipelines that edit images, the
// auditor for clusters. `skopeo copy --all oci:image-nametagctl docker://…` pushes it.
const imageDir = "image-"

// writeImages makes them: the static binary and nothing else, run by nobody.
func writeImages(ctx context.Context, dir, version string) error {
	for _, command := range []string{"nametagctl", auditor} {
		if err := writeImage(ctx, dir, command, version); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

func writeImage(ctx context.Context, dir, command, version string) error {
	work, err := os.MkdirTemp("", "nametag-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range helper.Architectures() {
		binary := filepath.Join(dir, command+"-linux-"+arch)
		if _, err := os.Stat(binary); errors.Is(err, fs.ErrNotExist) && command == auditor {
			continue // not built for this one
		}
		image, err := imageOf(command, binary, filepath.Join(work, arch), arch, version)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return oci.WriteLayout(ctx, filepath.Join(dir, imageDir+command), oci.Artifact{Index: index}, false)
}

func imageOf(command, binary, layerFile, arch, version string) (v1.Image, error) {
	content, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		return nil, err
	}
	layer, err := oci.NewLayer(layerFile, types.OCILayer, func(archive *tar.Writer) error {
		// What edits an image writes aside into /tmp; the auditor writes nowhere.
		if command != auditor {
			if err := archive.WriteHeader(oci.Entry("tmp/", 0o1777, 0)); err != nil {
				return err
			}
		}
		if err := archive.WriteHeader(oci.Entry(command, 0o755, info.Size())); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	})
	if err != nil {
		return nil, err
	}
	epoch := v1.Time{Time: time.Unix(0, 0).UTC()}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: epoch, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/" + command}, User: "65534:65534", WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title": command, "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": licence,
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: epoch, CreatedBy: "release"},
	})
}
