//go:build linux

// Package detached mounts file systems nowhere: nobody finds them, and none is left when its descriptor is closed, by
// whatever end of the process. It needs Linux 5.2 (fsopen(2), fsmount(2)).
package detached

import (
	"os"

	"golang.org/x/sys/unix"
)

// A Mount is what is to be mounted.
type Mount struct {
	Type       string   // as in /proc/filesystems
	Source     string   // a device; empty: none
	Flags      []string // of the file system, such as "ro"
	Attributes int      // of the mount: unix.MOUNT_ATTR_…
}

// Open mounts it, and returns a descriptor of its root. An error is an [*os.SyscallError] that says which call it was: at
// fsopen it is the kernel that does not have the file system, at fsconfig the file system that does not take the rest.
func (m Mount) Open() (root int, err error) {
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs) //nolint:errcheck // a context, spent by then
	if m.Source != "" {
		err = unix.FsconfigSetString(fs, "source", m.Source)
	}
	for _, flag := range m.Flags {
		if err == nil {
			err = unix.FsconfigSetFlag(fs, flag)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, m.Attributes)
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	return root, nil
}
