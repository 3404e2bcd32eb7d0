// Package jobs is what nametagctl does with images, a type for each: its fields are what a user may say, Run does it, and
// the result prints itself for people and for programs. Files are named as a user names them; what is written is written as a
// whole or not at all.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nametag-boot/nametag/internal/cli"
	"github.com/nametag-boot/nametag/internal/image/helper"
	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/limit"
	"github.com/nametag-boot/nametag/procfs"
)

// Console is where a job reads and speaks beside its result.
type Console struct {
	In  io.Reader // "-" as a file
	Out io.Writer // where a result goes that is a file and has no other name
	Err io.Writer // progress and warnings
}

// Stdio is the name of the standard input as a file to read, and of the standard output as one to write.
const Stdio = "-"

// Helpers say where the helpers are. The zero value is beside the program, else those that it carries.
type Helpers struct {
	Path         string // a file, or a folder of them
	AMD64, ARM64 string // files
	Carried      fs.FS
}

// given says whether the user named any.
func (h *Helpers) given() bool { return h.Path != "" || h.AMD64 != "" || h.ARM64 != "" }

// find finds the helpers of the architectures; none given: all that there are. They are there until close is called.
func (h *Helpers) find(architectures []string) (found []helper.Binary, closed func(), err error) {
	closed = func() {}
	program, err := os.Executable()
	if err != nil {
		return nil, closed, err
	}
	choice := helper.Choice{Path: h.Path, Files: map[string]string{helper.AMD64: h.AMD64, helper.ARM64: h.ARM64}}
	found, err = choice.Resolve(architectures, filepath.Dir(program))
	if errors.Is(err, fs.ErrNotExist) && !h.given() && h.Carried != nil {
		carried := &helper.Carried{FS: h.Carried}
		found, err = carried.All(architectures, err)
		return found, func() { _ = carried.Close() }, err
	}
	return found, closed, err
}

// open opens a helper for an initramfs. It is there until close is called.
func open(b helper.Binary) (*initramfs.Helper, func(), error) {
	file, err := os.Open(b.Path)
	if err != nil {
		return nil, nil, err
	}
	h, err := initramfs.NewHelper(file, b.Size)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", b.Path, err), file.Close())
	}
	return h, func() { _ = file.Close() }, nil
}

// Regular refuses what is no regular file before it is opened: opening a pipe waits, and no signal ends that.
func Regular(name string) error {
	st, err := os.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	return err
}

// WaitPolicy is the kernel argument of a policy that a user gave.
func WaitPolicy(value string) (string, error) {
	p, err := procfs.ParsePolicy(value)
	if err != nil {
		return "", cli.Misusedf("--wait: %w", err)
	}
	if p.Mode == procfs.Off {
		return "", cli.Misusedf("--wait %s: that makes nametag do nothing; leave it out of the image instead", value)
	}
	return p.String(), nil
}

// source is an initramfs that is read, a file of its own or part of one.
type source struct {
	file  *os.File
	image *initramfs.Image
	close func()
}

// openInitramfs opens an initramfs and reads it through. "-" is the standard input, of which a copy is made.
func openInitramfs(ctx context.Context, name string, budget *limit.Budget, c Console) (s source, err error) {
	if name == Stdio {
		s.file, s.close, err = spool(c.In, budget)
	} else {
		if err := Regular(name); err != nil {
			return s, err
		}
		if s.file, err = os.Open(name); err == nil { //nolint:gosec // the user's own choice
			s.close = func() { _ = s.file.Close() }
		}
	}
	if err != nil {
		return s, err
	}
	st, err := s.file.Stat()
	if err == nil {
		s.image, err = readInitramfs(ctx, s.file, st.Size(), name, budget, c)
	}
	if err != nil {
		s.close()
		return source{}, err
	}
	return s, nil
}

// readInitramfs reads an initramfs, or that part of a file, and shows how far it has come.
func readInitramfs(ctx context.Context, r io.ReaderAt, size int64, name string, budget *limit.Budget, c Console) (*initramfs.Image, error) {
	meter := cli.Quiet(c.Err, "reading "+filepath.Base(name))
	defer meter.Close()
	return initramfs.Read(ctx, r, size, budget, func(at int64) { meter.Update(at, size) })
}

// spool copies what cannot be read twice into a file, as much as the budget allows an image to unpack to.
func spool(in io.Reader, budget *limit.Budget) (_ *os.File, closed func(), err error) {
	dir, err := os.MkdirTemp("", cli.Scratch)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "input"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // ours
	closed = func() {
		if f != nil {
			_ = f.Close()
		}
		_ = os.RemoveAll(dir)
	}
	if err == nil {
		most := (&limit.Budget{Limits: budget.Limits}).Left()
		var n int64
		if n, err = io.Copy(f, io.LimitReader(in, most+1)); err == nil && n > most {
			err = (&limit.Budget{Limits: budget.Limits}).Unpack(n)
		}
	}
	if err != nil {
		closed()
		return nil, nil, err
	}
	return f, closed, nil
}

// warn says on standard error what a person must know.
func (c Console) warn(about string, warnings []string) {
	for _, text := range warnings {
		if about != "" {
			text = about + ": " + text
		}
		fmt.Fprintf(c.Err, "warning: %s\n", cli.Line(text))
	}
}
