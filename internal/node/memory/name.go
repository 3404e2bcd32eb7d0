//go:build linux

package memory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/identity"
	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/replace"
)

// Where a system that is not Talos keeps its name, below its root. In an initramfs that has mounted the root that is
// /sysroot.
const (
	Path = "/var/lib/nametag/name.json"
	// Early has the same, for whoever sees no more than the root: a /var of its own, be it a partition or a bind mount as on
	// Fedora CoreOS, is mounted after the initramfs.
	Early = "/etc/nametag/name.json"
)

// Schema is the version of the file's form.
const Schema = 1

// A Name is one that a machine has had. The zero value is none.
type Name struct {
	// Hostname is the exact string that the service gave, domain included.
	Hostname string `json:"hostname"`
	// InstanceID is of the instance that had it.
	InstanceID string `json:"instance_id"`
	// Since is when it was first written down; zero: not known. The clock of a machine that boots may be wrong.
	Since time.Time `json:"since,omitzero"`
}

// file is a Name on disk.
type file struct {
	Schema int `json:"schema"`
	Name
}

// ErrUnusable is what is wrong with a file that is there and holds no name: it is damaged, or of another schema. Whoever
// has a proven name may write over it.
var ErrUnusable = errors.New("not a remembered name")

// Read reads the name that a system keeps in the file at path. Where there is no file, the error is an
// [fs.ErrNotExist]; where the file holds no name, an [ErrUnusable]. At most 1 MiB is read, and only of a regular file.
func Read(path string) (Name, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // lest a FIFO block
	if err != nil {
		return Name{}, fmt.Errorf("memory: %w", err)
	}
	defer f.Close()
	n, err := readName(f)
	if err != nil {
		return Name{}, fmt.Errorf("memory: %s: %w", path, err)
	}
	return n, nil
}

// readName reads an open file.
func readName(f *os.File) (Name, error) {
	text, err := bounded(f)
	if err != nil {
		return Name{}, err
	}
	var found file
	if err := json.Unmarshal(text, &found); err != nil {
		return Name{}, ErrUnusable // not what is in it
	}
	if found.Schema != Schema {
		return Name{}, fmt.Errorf("%w: schema %d, not %d", ErrUnusable, found.Schema, Schema)
	}
	if err := found.valid(); err != nil {
		return Name{}, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return found.Name, nil
}

// valid says what keeps n from being the name of a machine. It is the look at a name from a disk, against whatever was
// done to that since.
func (n Name) valid() error {
	if n.InstanceID == "" {
		return errors.New("it has no instance id")
	}
	return identity.ValidateHostname(n.Hostname)
}

// Write writes the name into the file at path, so that a power cut leaves the old file or the new one and nothing in
// between. Folders are made. A file that holds this hostname and instance already is left as it is, with its Since.
func (n Name) Write(path string) error {
	if err := n.valid(); err != nil {
		return fmt.Errorf("memory: %s: %w", path, err)
	}
	if old, err := Read(path); err == nil && old.Hostname == n.Hostname && old.InstanceID == n.InstanceID {
		return nil
	}
	text, err := json.MarshalIndent(file{Schema, n}, "", "  ")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if err := replace.Durably(path, append(text, '\n')); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	_ = replace.Settle(path) // where it can be: an initramfs reads it without the journal, which is not its to write back
	return nil
}

// Remember writes the name into a system's root, at both of its places, for its later boots. What is mounted read-only is
// left out, without an error.
func (n Name) Remember(root string) error {
	var errs error
	for _, path := range []string{Early, Path} {
		if err := n.Write(filepath.Join(root, path)); !errors.Is(err, unix.EROFS) {
			errs = joined.Errors(errs, err)
		}
	}
	return errs
}

// largest is how much of a file is read.
const largest = 1 << 20

// errTooLarge is what a file of more than that is.
var errTooLarge = fmt.Errorf("it is larger than %d MiB", largest>>20)

// bounded reads a regular file that is no larger than it may be.
func bounded(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a regular file but %v", info.Mode().Type())
	}
	text, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err == nil && len(text) > largest {
		err = errTooLarge
	}
	return text, err
}
