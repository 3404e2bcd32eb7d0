// Package helper finds the node's binary on a workstation, and checks that it can run where it is going: as the first
// process of an initramfs, which has no loader and no libraries, on a processor of a given architecture.
//
// It keeps no state; its functions may be called concurrently.
package helper

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The architectures of Hetzner Cloud's servers, as Go and container images name them.
const (
	AMD64 = "amd64"
	ARM64 = "arm64"
)

// Architectures is all of them, in the order in which they are listed to people.
func Architectures() []string { return []string{AMD64, ARM64} }

// maxSize is more than any build of the helper, and little enough to notice that a file is something else.
const maxSize = 256 << 20

// importPath is what the import path in a helper's build information ends in.
const importPath = "/cmd/nametag"

// Binary is a helper that passed Check or Inspect.
type Binary struct {
	Path         string // empty after Inspect
	Architecture string // AMD64 or ARM64
	Machine      elf.Machine
	Size         int64  // bytes
	Version      string // as its build information has it; empty where that says nothing
}

// Error says which file is no helper, and why.
type Error struct {
	Path   string // empty after Inspect: its caller knows what was read
	Reason string // completes the sentence that begins with Path
	Err    error  // the cause; may be nil
}

func (e *Error) Error() string {
	s := e.Reason
	if e.Path != "" {
		s = e.Path + " " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Check reads the file's headers and returns what it is, or an *Error.
func Check(path string) (Binary, error) {
	f, err := os.Open(path) //nolint:gosec // the caller's own choice
	if err != nil {
		return Binary{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Binary{}, err
	}
	if !st.Mode().IsRegular() {
		return Binary{}, &Error{path, "is not a regular file", nil}
	}
	b, err := Inspect(f, st.Size())
	if bad := (*Error)(nil); errors.As(err, &bad) {
		bad.Path = path
	}
	if err != nil {
		return Binary{}, err
	}
	b.Path = path
	return b, nil
}

// Inspect is Check for a program of size bytes that need not be a file.
func Inspect(src io.ReaderAt, size int64) (Binary, error) {
	bad := func(reason string, cause error) (Binary, error) { return Binary{}, &Error{"", reason, cause} }
	if size > maxSize {
		return bad(fmt.Sprintf("has %d bytes: that is no nametag", size), nil)
	}
	program := io.NewSectionReader(src, 0, size)
	e, err := elf.NewFile(program)
	if err != nil {
		return bad("is not a Linux program", err)
	}
	b := Binary{Machine: e.Machine, Size: size}
	switch {
	case e.Machine == elf.EM_X86_64 && e.Class == elf.ELFCLASS64:
		b.Architecture = AMD64
	case e.Machine == elf.EM_AARCH64 && e.Class == elf.ELFCLASS64 && e.Data == elf.ELFDATA2LSB:
		b.Architecture = ARM64
	default:
		return bad(fmt.Sprintf("is for a machine that is neither amd64 nor arm64 (%v)", e.Machine), nil)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return bad(fmt.Sprintf("is not an executable (%v)", e.Type), nil)
	}
	for _, p := range e.Progs {
		// The loader is a file that the initramfs does not have: the kernel would panic.
		if p.Type == elf.PT_INTERP {
			return bad("is dynamically linked, and an initramfs has no loader: build it with CGO_ENABLED=0", nil)
		}
	}
	// A binary without build information is let pass: a distributor may strip it.
	if info, err := buildinfo.Read(program); err == nil {
		if info.Path != "" && !strings.HasSuffix(info.Path, importPath) {
			return bad("is "+info.Path+", not nametag", nil)
		}
		if info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
	}
	return b, nil
}

// names is where a helper stands in a folder: as a release has it, as `make cross` has it, as `make build` has it.
func names(architecture string) []string {
	return []string{"nametag-linux-" + architecture, filepath.Join(architecture, "nametag"), "nametag"}
}

// MissingError says that no helper of an architecture was found. It matches fs.ErrNotExist.
type MissingError struct {
	Architecture string
	Folders      []string // where it was looked for
	Rejected     []error  // what was found there instead
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("no nametag for %s", e.Architecture)
	if len(e.Folders) > 0 {
		s += fmt.Sprintf(" in %s (as %s)", strings.Join(e.Folders, " or "), strings.Join(names(e.Architecture), ", "))
	}
	for _, r := range e.Rejected {
		s += "; " + r.Error()
	}
	return s + fmt.Sprintf(": build it with `make cross`, or name it with --helper-%s FILE", e.Architecture)
}

func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// Find looks for an architecture's helper in the folders, in order. Where there is none, the error is a *MissingError.
func Find(architecture string, folders ...string) (Binary, error) {
	missing := &MissingError{Architecture: architecture, Folders: folders}
	for _, folder := range folders {
		for _, name := range names(architecture) {
			b, err := Check(filepath.Join(folder, name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				missing.Rejected = append(missing.Rejected, err)
			case b.Architecture == architecture:
				return b, nil
			case name != "nametag": // a plain nametag may be any architecture's
				missing.Rejected = append(missing.Rejected, &Error{Path: b.Path, Reason: "is for " + b.Architecture})
			}
		}
	}
	return Binary{}, missing
}

// Choice is what a user said about where the helpers are. The zero value is nothing: they stand beside the program.
type Choice struct {
	Path  string            // a file, whose architecture its header tells, or a folder of them
	Files map[string]string // by architecture
}

// Resolve finds the helpers of the architectures; none given: of every architecture that there is one for, at least
// one. The result is in the order of Architectures. beside is the folder of the running program.
func (c Choice) Resolve(architectures []string, beside string) ([]Binary, error) {
	wanted, all := architectures, len(architectures) == 0
	if all {
		wanted = Architectures()
	}
	for _, a := range wanted {
		if !slices.Contains(Architectures(), a) {
			return nil, fmt.Errorf("no architecture %q: choose %s", a, strings.Join(Architectures(), ", "))
		}
	}
	// bin/amd64/nametagctl stands beside bin/arm64/nametag.
	folders := []string{beside, filepath.Dir(beside)}
	var single *Binary
	if c.Path != "" {
		st, err := os.Stat(c.Path)
		switch {
		case err != nil:
			return nil, err
		case st.IsDir():
			folders = []string{c.Path}
		default:
			b, err := Check(c.Path)
			if err != nil {
				return nil, err
			}
			single, folders = &b, nil
		}
	}
	var found []Binary
	var missing error
	for _, a := range Architectures() {
		if !slices.Contains(wanted, a) {
			continue
		}
		b, err := c.one(a, single, folders)
		var none *MissingError
		switch {
		case errors.As(err, &none) && all:
			if missing == nil || len(none.Rejected) > 0 {
				missing = err
			}
		case err != nil:
			return nil, err
		default:
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return nil, missing
	}
	return found, nil
}

// one is the helper of one architecture. Where a user named files, only those count.
func (c Choice) one(architecture string, single *Binary, folders []string) (Binary, error) {
	if file := c.Files[architecture]; file != "" {
		b, err := Check(file)
		if err == nil && b.Architecture != architecture {
			err = &Error{Path: file, Reason: fmt.Sprintf("is for %s, not for %s", b.Architecture, architecture)}
		}
		return b, err
	}
	if single != nil {
		if single.Architecture == architecture {
			return *single, nil
		}
		return Binary{}, &MissingError{Architecture: architecture}
	}
	for _, file := range c.Files {
		if file != "" && c.Path == "" {
			return Binary{}, &MissingError{Architecture: architecture}
		}
	}
	return Find(architecture, folders...)
}
