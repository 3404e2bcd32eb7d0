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
	"golang.org/x/sys/unix"
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
	dir = filepath.Clean(dir)
	aside, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	lost := false // the old layout is in aside, and nowhere else
	defer func() {
		if !lost {
			err = errors.Join(err, os.RemoveAll(aside))
		}
	}()

	made := filepath.Join(aside, "new")
	if a.Index != nil {
		_, err = layout.Write(made, cancellableIndex{a.Index, ctx})
	} else {
		var path layout.Path
		if path, err = layout.Write(made, empty.Index); err == nil {
			var options []layout.Option
			platform, perr := Platform(a.Image)
			if perr != nil {
				return perr
			}
			if platform != nil {
				options = append(options, layout.WithPlatform(*platform))
			}
			err = path.AppendImage(cancellable{a.Image, ctx}, options...)
		}
	}
	if err != nil {
		return err
	}
	if err := readable(made); err != nil {
		return err
	}
	// A folder cannot be renamed over one that has files: the old one steps aside first.
	old := filepath.Join(aside, "old")
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(made, dir); err != nil {
		back := os.Rename(old, dir)
		lost = back != nil && !errors.Is(back, fs.ErrNotExist)
		return errors.Join(err, back)
	}
	return nil
}

// readable gives the files of a layout the modes of files, not of programs.
func readable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o644) //nolint:gosec // an image, for other users too
	})
}

// CheckArchive says whether WriteArchive could write that file, before any work is done for it.
func CheckArchive(file string) error {
	path, _, err := replaced(file)
	if err == nil {
		if err = unix.Access(filepath.Dir(path)+"/.", unix.W_OK|unix.X_OK); err != nil {
			err = &fs.PathError{Op: "writing into", Path: filepath.Dir(path), Err: err}
		}
	}
	if err != nil {
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
	if err := Replace(file, func(w io.Writer) error { return tarball.Write(ref, cancellable{image, ctx}, w) }); err != nil {
		return fail(err)
	}
	return nil
}

// Replace writes a file aside and puts it in the place of path, or of what that is a symbolic link to, if there was no
// error. A file that was there keeps its mode.
func Replace(path string, fill func(io.Writer) error) (err error) {
	path, mode, err := replaced(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return f.Close()
}

// replaced is the file that is replaced where path is to be, and the mode of the new one.
func replaced(path string) (string, fs.FileMode, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return path, 0o644, nil //nolint:nilerr // there is none yet
	case !st.Mode().IsRegular():
		return "", 0, fmt.Errorf("%s is there and is no regular file", path)
	}
	return path, st.Mode().Perm(), nil
}
