//go:build linux

package kmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
)

// image is the squashfs, mounted where only this process can see it.
type image struct {
	root  *root
	sys   sys
	label string
	loop  *os.File
}

// mountImage attaches the image to a loop device and mounts that, read-only, with
// no place in any mount table.
func (s *session) mountImage(ctx context.Context) (_ *image, err error) {
	initramfs, err := openRoot(s.cfg.Root, "")
	if err != nil {
		return nil, err
	}
	defer initramfs.close() //nolint:errcheck // a directory: nothing to lose
	label := initramfs.label + s.cfg.Image
	backing, err := initramfs.open(s.cfg.Image)
	if err != nil {
		return nil, &Error{Op: "open", File: label, Err: err}
	}
	defer backing.Close() // the loop device has a reference of its own
	m := &image{sys: s.sys, label: label}
	defer func() {
		if err != nil {
			err = joined.Errors(err, m.close())
		}
	}()
	var device string
	if m.loop, device, err = s.attach(ctx, backing, label); err != nil {
		return nil, err
	}
	fd, err := mountDetached(s.sys, device)
	if err != nil {
		e := &Error{Op: "mount", File: label, Err: err, Remedy: "is it a squashfs, whole, and compressed as this kernel can read it?"}
		if errors.Is(err, unix.ENODEV) {
			e.Remedy = "this kernel has no squashfs built in"
		}
		return nil, e
	}
	m.root = &root{os.NewFile(uintptr(fd), label), label + ":"}
	return m, nil
}

// attach finds a free loop device and attaches the file to it. Another process may
// take the device in between; then there is the next one.
func (s *session) attach(ctx context.Context, backing *os.File, label string) (*os.File, string, error) {
	wrong := func(op, file string, err error) (*os.File, string, error) {
		e := &Error{Op: op, File: file, Err: err}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			e.Remedy = "devtmpfs must be mounted at " + s.cfg.Dev + ", and the kernel must have loop devices"
		}
		return nil, "", e
	}
	control := filepath.Join(s.cfg.Dev, "loop-control")
	ctl, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return wrong("open", control, errors.Unwrap(err))
	}
	defer ctl.Close() // only ever asked
	for tries := 0; ; tries++ {
		if ctx.Err() != nil {
			return nil, "", s.interrupted(ctx)
		}
		n, err := s.sys.loopFree(int(ctl.Fd()))
		if err != nil {
			return wrong("find a free loop device with", control, err)
		}
		device := filepath.Join(s.cfg.Dev, fmt.Sprintf("loop%d", n))
		loop, err := os.OpenFile(device, os.O_RDONLY, 0)
		if err != nil {
			return wrong("open", device, errors.Unwrap(err))
		}
		err = s.sys.loopConfigure(int(loop.Fd()), int(backing.Fd()), label)
		if err == nil {
			return loop, device, nil
		}
		_ = loop.Close() // not ours
		if !errors.Is(err, unix.EBUSY) || tries >= 16 {
			return wrong("attach "+label+" to", device, err)
		}
	}
}

// mountDetached returns a descriptor of the root of the mounted device.
func mountDetached(sys sys, device string) (int, error) {
	fsfd, err := sys.fsopen("squashfs")
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fsfd) //nolint:errcheck // a context, spent by now
	if err := sys.fsconfig(fsfd, device); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	fd, err := sys.fsmount(fsfd)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return fd, nil
}

// close unmounts and detaches. The loop device is cleared by hand, not left to
// autoclear, so that a failure shows.
func (m *image) close() error {
	var errs []error
	if m.root != nil {
		if err := m.root.close(); err != nil {
			errs = append(errs, &Error{Op: "unmount", File: m.label, Err: err})
		}
	}
	if m.loop != nil {
		// ENXIO: nothing attached any more.
		if err := m.sys.loopClear(int(m.loop.Fd())); err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, &Error{Op: "detach " + m.label + " from", File: m.loop.Name(), Err: err})
		}
		if err := m.loop.Close(); err != nil {
			errs = append(errs, &Error{Op: "close", File: m.loop.Name(), Err: err})
		}
	}
	return joined.Errors(errs...)
}
