//go:build linux

package kmod

import (
	"strings"

	"golang.org/x/sys/unix"
)

// sys is what the kernel is asked for, so that tests can see the order and make
// each of it fail.
type sys interface {
	finitModule(fd int, params string) error
	initModule(image []byte, params string) error

	loopFree(control int) (number int, err error)
	loopConfigure(loop, backing int, name string) error
	loopClear(loop int) error

	fsopen(fstype string) (fd int, err error)
	fsconfig(fd int, device string) error
	fsmount(fd int) (mount int, err error)
}

// kernel is the real sys.
type kernel struct{}

func (kernel) finitModule(fd int, params string) error { return unix.FinitModule(fd, params, 0) }

func (kernel) initModule(image []byte, params string) error { return unix.InitModule(image, params) }

func (kernel) loopFree(control int) (int, error) {
	return unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
}

// loopConfigure asks for autoclear: when its last user is gone the loop device
// lets go of the file, also if that user was killed.
func (kernel) loopConfigure(loop, backing int, name string) error {
	config := unix.LoopConfig{
		Fd:   uint32(backing),
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
	return unix.IoctlLoopConfigure(loop, &config)
}

func (kernel) loopClear(loop int) error { return unix.IoctlSetInt(loop, unix.LOOP_CLR_FD, 0) }

func (kernel) fsopen(fstype string) (int, error) { return unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC) }

// fsconfig sets the device and makes the superblock. The kernel says more about a
// failure than an errno, to whom reads the descriptor (fs/fsopen.c).
func (kernel) fsconfig(fd int, device string) error {
	err := unix.FsconfigSetFlag(fd, "ro")
	if err == nil {
		err = unix.FsconfigSetString(fd, "source", device)
	}
	if err == nil {
		err = unix.FsconfigCreate(fd)
	}
	if err == nil {
		return nil
	}
	var message [256]byte
	if n, readErr := unix.Read(fd, message[:]); readErr == nil && n > 2 {
		return &saidError{strings.TrimSpace(string(message[2:n])), err} // after "e "
	}
	return err
}

func (kernel) fsmount(fd int) (int, error) {
	return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// saidError is an errno with what the kernel said about it.
type saidError struct {
	said string
	err  error
}

func (e *saidError) Error() string { return e.err.Error() + ": " + e.said }
func (e *saidError) Unwrap() error { return e.err }
