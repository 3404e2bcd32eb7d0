//go:build linux

package lasting

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The files, below a [Root].
const (
	File = "etc/hostname"
	// Mark has what nametag wrote to File: one name, and the earlier one beside it while it is being replaced. It is on
	// the same file system.
	Mark = "etc/nametag/hostname"
)

// Root is the folder that is, or is going to be, a system's /: "/" on a system that
// runs, "/sysroot" in dracut's initramfs.
type Root string

// Operator returns the name that somebody other than nametag gave this system in
// /etc/hostname, empty if nobody did. It is as it stands there, not validated.
func (r Root) Operator() (string, error) {
	name, err := r.static()
	if err != nil || name == "" || r.covered() {
		return "", err
	}
	if ours, err := r.wrote(name); err != nil || ours {
		return "", err
	}
	return name, nil
}

// wrote reports whether a static name is one that nametag wrote.
func (r Root) wrote(name string) (bool, error) {
	marks, err := r.lines(Mark)
	return slices.Contains(marks, name), err
}

// Static returns the name in /etc/hostname, whoever wrote it, empty if there is none.
func (r Root) Static() (string, error) { return r.static() }

func (r Root) static() (string, error) {
	lines, err := r.lines(File)
	if err != nil || len(lines) == 0 || isLocalhost(lines[0]) {
		return "", err
	}
	return lines[0], nil
}

// isLocalhost reports whether a static name stands for none, as in systemd's
// is_localhost (src/basic/hostname-util.c).
func isLocalhost(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return name == "localhost" || name == "(none)" || name == "localhost.localdomain" ||
		strings.HasSuffix(name, ".localhost") || strings.HasSuffix(name, ".localhost.localdomain")
}

// Credential is what systemd calls the name that an operator gives a machine from outside (systemd.system-credentials(7)).
const Credential = "system.hostname"

// ByCredential returns that name, empty if there is none. run is /run.
func ByCredential(run string) string {
	content, err := os.ReadFile(filepath.Join(run, "credentials/@system", Credential))
	name := strings.TrimSpace(string(content))
	if err != nil || isLocalhost(name) {
		return ""
	}
	return name
}

// longest is more than any host name has, with a comment above it.
const longest = 64 << 10

// lines returns what a file of the root has beside empty lines and comments, of which the first is what counts in
// [File]. A file that is not there has none.
func (r Root) lines(name string) ([]string, error) {
	f, err := r.open(name, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, longest))
	if err != nil {
		return nil, fmt.Errorf("lasting: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// open opens a file with all symbolic links, absolute ones too, leading to what they
// will lead to when the root is /. (openat2(2), Linux 5.6.)
func (r Root) open(name string, flags uint64) (*os.File, error) {
	path := r.path(name)
	dir, err := unix.Open(string(r), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lasting: %w", &os.PathError{Op: "open", Path: string(r), Err: err})
	}
	defer unix.Close(dir) //nolint:errcheck // not a file with content
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT})
	if errors.Is(err, unix.ENOSYS) {
		fd, err = unix.Open(path, int(flags)|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) //nolint:gosec // a few bits
	}
	if err != nil {
		return nil, fmt.Errorf("lasting: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (r Root) path(name string) string { return filepath.Join(string(r), name) }
