package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nametag-boot/nametag/internal/image/whole"
)

// CheckLayout says whether WriteLayout would take that folder, before any work is done for it.
func CheckLayout(dir string, replace bool) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return fmt.Errorf("%s is there and is no OCI layout: name a folder that does not exist", dir)
	}
	if !replace {
		return fmt.Errorf("%s is an OCI layout already: name another folder, or replace it with --force", dir)
	}
	return nil
}

// WriteLayout writes the artifact as an OCI layout in the folder dir, which must not exist, or be empty, or, with
// replace, be another layout. Every image in its index.json has a platform: Talos' imager finds it by that.
func WriteLayout(ctx context.Context, dir string, a Artifact, replace bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("OCI layout %s: %w", dir, err)
		}
	}()
	if err := CheckLayout(dir, replace); err != nil {
		return err
	}
	return whole.Folder(dir, func(made string) error {
		if a.Index != nil {
			_, err := layout.Write(made, cancellableIndex{a.Index, ctx})
			return err
		}
		path, err := layout.Write(made, empty.Index)
		if err != nil {
			return err
		}
		platform, err := Platform(a.Image)
		if err != nil {
			return err
		}
		var options []layout.Option
		if platform != nil {
			options = append(options, layout.WithPlatform(*platform))
		}
		return path.AppendImage(cancellable{a.Image, ctx}, options...)
	})
}

// CheckArchive says whether WriteArchive could write that file, before any work is done for it.
func CheckArchive(file string) error {
	if err := whole.CheckFile(file); err != nil {
		return fmt.Errorf("docker-archive %s: %w", file, err)
	}
	return nil
}

// WriteArchive writes the image as a docker-archive, named tag in it, to the file, which it replaces.
func WriteArchive(ctx context.Context, file, tag string, image v1.Image) error {
	fail := func(err error) error { return fmt.Errorf("docker-archive %s: %w", file, err) }
	ref, err := name.NewTag(tag)
	if err != nil {
		return fail(err)
	}
	if err := whole.File(file, 0o644, func(w *os.File) error {
		return tarball.Write(ref, cancellable{image, ctx}, struct{ io.Writer }{w})
	}); err != nil {
		return fail(err)
	}
	return nil
}
