//go:build linux

package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/detached"
)

// ownRoot is where our mounts are while we need them. The name is not one that an initramfs has.
const ownRoot = "/.nametag"

// mounts are the kernel's file systems, mounted below a folder of our own.
type mounts struct {
	root string // the folder
}

func (m mounts) proc() string { return filepath.Join(m.root, "proc") }
func (m mounts) sys() string  { return filepath.Join(m.root, "sys") }
func (m mounts) dev() string  { return filepath.Join(m.root, "dev") }

// self is this program, for starting it again.
func (m mounts) self() string { return filepath.Join(m.proc(), "self/exe") }

// mountOwn mounts procfs, sysfs and devtmpfs below root. On an error nothing is left.
func mountOwn(root string) (p mounts, err error) {
	p = mounts{root}
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return p, fmt.Errorf("boot: %w", err)
	}
	defer func() {
		if err != nil {
			err = joined.Errors(err, p.unmount())
		}
	}()
	// A tmpfs to stand on: the folders below are gone with it, also from an initramfs that is read-only otherwise.
	if err := mount("tmpfs", root, "size=64k,mode=0700"); err != nil {
		return p, err
	}
	for _, m := range []struct{ fstype, dir string }{{"proc", p.proc()}, {"sysfs", p.sys()}, {"devtmpfs", p.dev()}} {
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			return p, fmt.Errorf("boot: %w", err)
		}
		if err := mount(m.fstype, m.dir, ""); err != nil {
			return p, err
		}
	}
	return p, nil
}

func mount(fstype, dir, data string) error {
	// noexec does not keep us from starting ourselves through /proc/self/exe: what counts is where that leads.
	if err := unix.Mount(fstype, dir, fstype, unix.MS_NOSUID|unix.MS_NOEXEC, data); err != nil {
		return fmt.Errorf("boot: mounting %s on %s: %w", fstype, dir, err)
	}
	return nil
}

// unmount takes everything away. It goes on after an error, and detaches what is busy: the next init must not find it.
func (m mounts) unmount() error {
	var errs []error
	for _, dir := range []string{m.dev(), m.sys(), m.proc(), m.root} {
		// EINVAL and ENOENT: it was never mounted.
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("boot: unmounting %s: %w", dir, err))
		}
	}
	if err := os.Remove(m.root); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("boot: %w", err))
	}
	return joined.Errors(errs...)
}

// commandLine reads the kernel command line from a procfs that is mounted nowhere and goes with the descriptor; on
// kernels before 5.2, from one that is mounted for the moment.
func commandLine() (string, error) {
	line, err := readProc("cmdline")
	if err == nil {
		return line, nil
	}
	p := mounts{ownRoot}
	if merr := os.Mkdir(p.root, 0o700); merr != nil && !errors.Is(merr, os.ErrExist) {
		return "", joined.Errors(err, merr)
	}
	defer os.Remove(p.root) //nolint:errcheck // an empty folder in an initramfs, at worst
	if merr := mount("proc", p.root, ""); merr != nil {
		return "", joined.Errors(err, merr)
	}
	content, rerr := os.ReadFile(filepath.Join(p.root, "cmdline"))
	if uerr := unix.Unmount(p.root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); uerr != nil {
		rerr = joined.Errors(rerr, uerr)
	}
	return string(content), rerr
}

// readProc reads a file of a procfs that is mounted nowhere.
func readProc(name string) (string, error) {
	proc, err := nowhere("proc")
	if err != nil {
		return "", err
	}
	defer unix.Close(proc) //nolint:errcheck // not a file with content
	fd, err := unix.Openat(proc, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), "/proc/"+name)
	defer f.Close()
	content, err := io.ReadAll(f)
	return string(content), err
}

// nowhere mounts one of the kernel's file systems where nobody finds it.
func nowhere(fstype string) (root int, err error) {
	return detached.Mount{Type: fstype, Attributes: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}.Open()
}
