//go:build linux

package record

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MountRun makes run, "/run" as a rule, a mount of its own if it is none, so that
// what is written there outlives the initramfs: systemd and dracut take a /run that
// is already mounted as it is, and move it into the new root. (initramfs-tools
// mounts one of its own over it, and moves that.) It reports whether it mounted.
//
// It is not for every next init. One that clears the initramfs itself and knows
// the list of its mounts, as Talos' /init does, gets neither a mount that it does
// not expect nor, since it deletes the initramfs, anything from a record: there,
// leave both out.
func MountRun(run string) (bool, error) {
	if err := os.Mkdir(run, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return false, fmt.Errorf("record: %w", err)
	}
	mounted, err := isMount(run)
	if err != nil || mounted {
		return false, err
	}
	// The options are systemd's own for /run (src/shared/mount-setup.c).
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_STRICTATIME
	if err := unix.Mount("tmpfs", run, "tmpfs", flags, "mode=0755,size=20%,nr_inodes=800k"); err != nil {
		return false, fmt.Errorf("record: mounting a tmpfs on %s: %w", run, err)
	}
	return true, nil
}

// isMount reports whether dir is the root of a mount: whether it and its parent
// are on different devices. A bind mount of the same file system is not seen, and
// nobody makes one on an initramfs' /run.
func isMount(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		return false, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := unix.Stat(dir+"/..", &above); err != nil {
		return false, &os.PathError{Op: "stat", Path: dir + "/..", Err: err}
	}
	return here.Dev != above.Dev, nil
}
