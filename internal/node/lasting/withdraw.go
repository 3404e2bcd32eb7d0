//go:build linux

package lasting

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Withdraw takes back the name that nametag wrote to /etc/hostname, where it has turned
// out to be another machine's: the disk is a clone's. Where the file cannot be removed
// now, it is covered for this boot by one without a name. run is [Run] but in tests.
// It returns the name; empty: there was none of nametag's.
func (r Root) Withdraw(run string) (string, error) {
	if r.covered() && writable(r.path("etc")) == nil {
		if err := r.uncover(); err != nil {
			return "", err
		}
	}
	name, err := r.static()
	if err != nil || name == "" || r.covered() {
		return "", err
	}
	if ours, err := r.wrote(name); err != nil || !ours {
		return "", err
	}
	// The mark goes last: cut off in between, no name of ours passes for an operator's.
	err = os.Remove(r.path(File))
	if errors.Is(err, unix.EROFS) {
		none := filepath.Join(run, "nametag/no-hostname")
		if err = put(none, "# The name on this disk is another machine's, which nametag has seen."); err == nil {
			err = r.cover(none)
		}
		return name, err
	}
	if err == nil {
		err = os.Remove(r.path(Mark))
	}
	if err != nil {
		return name, fmt.Errorf("lasting: %w", err)
	}
	return name, nil
}

// cover puts another file over /etc/hostname, until the machine stops.
func (r Root) cover(with string) error {
	if err := unix.Mount(with, r.path(File), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lasting: covering %s: %w", r.path(File), err)
	}
	return nil
}

// uncover takes away what covers it.
func (r Root) uncover() error {
	for r.covered() {
		if err := unix.Unmount(r.path(File), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("lasting: uncovering %s: %w", r.path(File), err)
		}
	}
	return nil
}
