package oci

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Artifact is one image, or an index of one image for each platform. Exactly one of the fields is set.
type Artifact struct {
	Image v1.Image
	Index v1.ImageIndex
}

// Digest is that of the manifest: what the artifact can be pinned by.
func (a Artifact) Digest() (v1.Hash, error) {
	if a.Index != nil {
		return a.Index.Digest()
	}
	return a.Image.Digest()
}

// MediaType is that of the manifest.
func (a Artifact) MediaType() (types.MediaType, error) {
	if a.Index != nil {
		return a.Index.MediaType()
	}
	return a.Image.MediaType()
}

// Platform is what the image's configuration says that it is for. Images of Talos' imager before 1.10 say nothing: the
// result is nil.
func Platform(image v1.Image) (*v1.Platform, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's configuration: %w", err)
	}
	if config.Architecture == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	p := config.Platform()
	if p.OS == "" {
		p.OS = "linux"
	}
	return p, nil
}

// Only is the one image of an index that has one.
func (a Artifact) Only() (Artifact, error) {
	if a.Index == nil {
		return a, nil
	}
	manifest, err := a.Index.IndexManifest()
	if err != nil {
		return Artifact{}, err
	}
	if len(manifest.Manifests) != 1 {
		return Artifact{}, fmt.Errorf("the index has %d images, not one", len(manifest.Manifests))
	}
	image, err := a.Index.Image(manifest.Manifests[0].Digest)
	return Artifact{Image: image}, err
}
