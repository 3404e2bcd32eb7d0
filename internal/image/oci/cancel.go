package oci

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// cancellable is an image whose layers stop when the context ends. Layouts and archives are written by functions that
// know no context.
type cancellable struct {
	v1.Image
	ctx context.Context //nolint:containedctx // the functions between have no place for it
}

func (c cancellable) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	if err != nil {
		return nil, err
	}
	wrapped := make([]v1.Layer, len(layers))
	for i, l := range layers {
		wrapped[i] = cancellableLayer{l, c.ctx}
	}
	return wrapped, nil
}

// index is v1.ImageIndex by a name that leaves room for its method ImageIndex.
type index = v1.ImageIndex

type cancellableIndex struct {
	index
	ctx context.Context //nolint:containedctx // as above
}

func (c cancellableIndex) Image(h v1.Hash) (v1.Image, error) {
	image, err := c.index.Image(h)
	if err != nil {
		return nil, err
	}
	return cancellable{image, c.ctx}, nil
}

func (c cancellableIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	inner, err := c.index.ImageIndex(h)
	if err != nil {
		return nil, err
	}
	return cancellableIndex{inner, c.ctx}, nil
}

type cancellableLayer struct {
	v1.Layer
	ctx context.Context //nolint:containedctx // as above
}

func (c cancellableLayer) Compressed() (io.ReadCloser, error) {
	r, err := c.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	return cancellableReader{r, c.ctx}, nil
}

type cancellableReader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // as above
}

func (c cancellableReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.ReadCloser.Read(p)
}
