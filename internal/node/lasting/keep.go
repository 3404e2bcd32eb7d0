//go:build linux

package lasting

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/joined"
	"github.com/nametag-boot/nametag/internal/node/replace"
)

// How a name lasts.
type How string

// The ways, the best first.
const (
	// Written: it stands in /etc/hostname.
	Written How = "written"
	// Unchanged: it stood there before.
	Unchanged How = "unchanged"
	// Covered: the file system cannot be written now, and the file there is covered, for
	// this boot, by one that has the name.
	Covered How = "covered"
	// Transient: there is no file that could be covered. The kernel has the name, and
	// networkd and NetworkManager are told to leave it alone.
	Transient How = "transient"
)

// String returns the way in words that say where the name is.
func (h How) String() string {
	switch h {
	case Written:
		return "in /etc/hostname"
	case Unchanged:
		return "in /etc/hostname, as before"
	case Covered:
		return "over /etc/hostname, which cannot be written now"
	case Transient:
		return "in the kernel alone, since /etc/hostname cannot be written now"
	}
	return string(h)
}

// Run is where what lasts for this boot is put: on a file system that goes with the
// switch into the real root.
const Run = "/run"

// Keep makes a name last, which must be valid. Done again it changes nothing. run is
// [Run] but in tests. An error that comes beside a way is what kept a better one
// from working; the name is in effect all the same. A file system that is mounted
// read-only is none.
func (r Root) Keep(name, run string) (How, error) {
	static, err := r.static()
	if err == nil && static == name && !r.covered() {
		return Unchanged, nil
	}
	werr := r.write(name)
	if werr == nil {
		return Written, nil
	}
	left := werr
	if errors.Is(werr, unix.EROFS) { // as the system is meant to be, or until later in this boot
		left = nil
	}
	cover := filepath.Join(run, "nametag/hostname")
	if err := put(cover, name); err != nil {
		return "", joined.Errors(werr, err)
	}
	if static == name && r.covered() { // it is so still
		return Covered, left
	}
	if st, err := os.Lstat(r.path(File)); err == nil && st.Mode().IsRegular() { // where a link leads is not ours to cover
		if err := r.cover(cover); err != nil {
			return "", joined.Errors(werr, err)
		}
		return Covered, left
	}
	if err := r.quieten(run); err != nil {
		return "", joined.Errors(werr, err)
	}
	return Transient, left
}

// write puts the name and the mark into the root. The mark comes first, beside the one of an earlier name of ours: cut
// off anywhere, there is no file with a name of ours that passes for an operator's.
func (r Root) write(name string) error {
	if st, err := os.Lstat(r.path(File)); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("lasting: %s is no plain file", r.path(File))
	}
	if r.covered() {
		// Covered in the initramfs; the file system may be writable by now.
		if err := writable(r.path("etc")); err != nil {
			return err
		}
		if err := r.uncover(); err != nil {
			return err
		}
	}
	marks := name
	old, _ := r.static() // what cannot be read is none of ours
	if ours, err := r.wrote(old); err == nil && ours && old != name {
		marks += "\n" + old
	}
	if err := put(r.path(Mark), marks); err != nil {
		return err
	}
	if err := put(r.path(File), name); err != nil {
		return err
	}
	if marks != name {
		_ = put(r.path(Mark), name) // the earlier name beside it does no harm
	}
	return nil
}

// writable reports, as an error, that a folder's file system is mounted read-only.
func writable(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("lasting: %w", &os.PathError{Op: "statfs", Path: dir, Err: err})
	}
	if s.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("lasting: %w", &os.PathError{Op: "write", Path: dir, Err: unix.EROFS})
	}
	return nil
}

// covered reports whether something of ours is mounted over the file: something from [Run], which is memory. What else is
// mounted there, from a disk, is an operator's.
func (r Root) covered() bool {
	var fs unix.Statfs_t
	return r.mountedOver() && unix.Statfs(r.path(File), &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// mountedOver reports whether something is mounted over the file.
func (r Root) mountedOver() bool {
	var file unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, r.path(File), unix.AT_SYMLINK_NOFOLLOW, 0, &file)
	if err == nil && file.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return file.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	// Before Linux 5.8. By the device: on an overlay's file it may be another one than on its folder all the same.
	var st, dir unix.Stat_t
	return unix.Lstat(r.path(File), &st) == nil && unix.Lstat(r.path("etc"), &dir) == nil && st.Dev != dir.Dev
}

// put writes a line to a file, on the disk: the power may go at the next moment, and an empty /etc/hostname would be
// worse than an old one.
func put(name, line string) error {
	err := replace.Durably(name, []byte(line+"\n"), func(f *os.File) { label(f, name) })
	if err != nil {
		return fmt.Errorf("lasting: %w", err)
	}
	return nil
}

// selinux is the label of a file, and byPolicy what the reference policy has for /etc/hostname.
const (
	selinux  = "security.selinux"
	byPolicy = "system_u:object_r:hostname_etc_t:s0\x00"
)

// label gives a new file the label of the one that it replaces, or the policy's where
// the folder has one at all: in an initramfs no policy is loaded that would do so, and
// a system that enforces one does not let its init read a file without a label. Where
// it cannot be set, restorecon(8) does it later.
func label(f *os.File, name string) {
	var was [256]byte
	n, err := unix.Lgetxattr(name, selinux, was[:])
	if err != nil {
		if _, err := unix.Lgetxattr(filepath.Dir(name), selinux, nil); err != nil {
			return // a system without labels
		}
		n = copy(was[:], byPolicy)
	}
	_ = unix.Fsetxattr(int(f.Fd()), selinux, was[:n], 0) //nolint:gosec // a descriptor
}
