//go:build linux

package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// File is one entry of an image. Exactly one of From, Data, Link and Device says what it is; none: an empty file.
type File struct {
	From   string // a file on this machine
	Data   []byte
	Link   string    // a symbolic link's target
	Device [2]uint32 // a character device's numbers; only in a cpio archive
	Mode   os.FileMode
}

// Files is what an image contains, by path, with no leading slash. Folders come by themselves.
type Files map[string]File

// Add takes all of others in, which win.
func (f Files) Add(others Files) Files {
	maps.Copy(f, others)
	return f
}

func (f Files) paths() []string { return slices.Sorted(maps.Keys(f)) }

// folders is every folder that the paths need, the upper before the lower.
func (f Files) folders() []string {
	seen := map[string]bool{}
	for path := range f {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			seen[dir] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// key is the same for the same content: what an image is cached by.
func (f Files) key(kind string) (string, error) {
	h := sha256.New()
	_, _ = io.WriteString(h, kind)
	for _, path := range f.paths() {
		e := f[path]
		fmt.Fprintf(h, "\n%q %o %q %v %q ", path, e.Mode, e.Link, e.Device, e.Data)
		if e.From == "" {
			continue
		}
		content, err := os.Open(e.From)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, content)
		_ = content.Close()
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// Initramfs is the files as an uncompressed cpio archive, made once. Archives may be put one behind the other.
func (d Deps) Initramfs(f Files) (string, error) {
	return d.make(f, "cpio", func(out string) error {
		var b bytes.Buffer
		w := cpio.Newc.Writer(&b)
		for _, dir := range f.folders() {
			if err := w.WriteRecord(cpio.Directory(dir, 0o755)); err != nil {
				return err
			}
		}
		for _, path := range f.paths() {
			r, err := f[path].record(path)
			if err != nil {
				return err
			}
			if err := w.WriteRecord(cpio.MakeReproducible(r)); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		if err := cpio.WriteTrailer(w); err != nil {
			return err
		}
		// The next archive must begin at a multiple of four (the kernel's init/initramfs.c).
		b.Write(make([]byte, -b.Len()&511))
		return os.WriteFile(out, b.Bytes(), 0o644) //nolint:gosec // an image, for other users too
	})
}

func (e File) record(path string) (cpio.Record, error) {
	mode := uint64(e.Mode.Perm())
	switch {
	case e.Link != "":
		return cpio.Symlink(path, e.Link), nil
	case e.Device != [2]uint32{}:
		return cpio.CharDev(path, mode, uint64(e.Device[0]), uint64(e.Device[1])), nil
	case e.From != "":
		b, err := os.ReadFile(e.From)
		if err != nil {
			return cpio.Record{}, err
		}
		return cpio.StaticRecord(b, cpio.Info{Name: path, Mode: unix.S_IFREG | mode}), nil
	default:
		return cpio.StaticRecord(e.Data, cpio.Info{Name: path, Mode: unix.S_IFREG | mode}), nil
	}
}

// Squashfs is the files as a squashfs image, made once. folders are empty folders to put in beside them. It is packed
// by zstd or xz as the caller says; "" leaves it unpacked, which an emulated processor reads fastest.
func (d Deps) Squashfs(ctx context.Context, f Files, packing string, folders ...string) (string, error) {
	return d.make(f, "sqsh "+packing+strings.Join(folders, " "), func(out string) error {
		tree, err := os.MkdirTemp(d.Cache, "tree-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tree)                      //nolint:errcheck // a cache
		if err := os.Chmod(tree, 0o755); err != nil { //nolint:gosec // the root folder of the image
			return err
		}
		for _, dir := range append(f.folders(), folders...) {
			if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil { //nolint:gosec // a folder of the image
				return err
			}
		}
		for _, path := range f.paths() {
			if err := f[path].place(filepath.Join(tree, path)); err != nil {
				return err
			}
		}
		args := []string{tree, out, "-all-root", "-noappend", "-no-progress", "-quiet", "-mkfs-time", "0", "-all-time", "0", "-processors", "1"}
		if packing == "" {
			args = append(args, "-noI", "-noD", "-noF", "-noX")
		} else {
			args = append(args, "-comp", packing)
		}
		if output, err := d.command(ctx, mksquashfs, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("mksquashfs: %w: %s", err, output)
		}
		return nil
	})
}

func (e File) place(path string) error {
	if e.Link != "" {
		return os.Symlink(e.Link, path)
	}
	b := e.Data
	if e.From != "" {
		var err error
		if b, err = os.ReadFile(e.From); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, e.Mode.Perm())
}

const mksquashfs = "usr/bin/mksquashfs"

// command runs a program of the packages that were unpacked for this machine, with the C library that came with it.
func (d Deps) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	m := machineTypes[AMD64]
	libraries := filepath.Join(d.tools, m.libraries) + ":" + filepath.Join(d.tools, "usr", m.libraries)
	all := append([]string{"--library-path", libraries, filepath.Join(d.tools, program)}, args...)
	return exec.CommandContext(ctx, filepath.Join(d.tools, m.libraries, m.loader), all...) //nolint:gosec // our own cache
}

// make calls build for a file that the cache does not have yet, and returns its path.
func (d Deps) make(f Files, kind string, build func(out string) error) (string, error) {
	key, err := f.key(kind)
	if err != nil {
		return "", err
	}
	extension, _, _ := strings.Cut(kind, " ")
	path := filepath.Join(d.Cache, "images", key+"."+extension)
	if now := time.Now(); os.Chtimes(path, now, now) == nil {
		return path, nil
	}
	d.prune()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // a cache for every user
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a cache
	out := filepath.Join(dir, "image")
	if err := build(out); err != nil {
		return "", err
	}
	return path, os.Rename(out, path)
}

// prune removes the images that nothing asked for in a day: each change of a guest's program makes new ones.
func (d Deps) prune() {
	images, _ := filepath.Glob(filepath.Join(d.Cache, "images", "*"))
	for _, image := range images {
		if st, err := os.Stat(image); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(image)
		}
	}
}
