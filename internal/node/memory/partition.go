//go:build linux

package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/detached"
)

// The labels of Talos' partitions (its pkg/machinery/constants). META is in the image that a server is made from, the
// other two are made at the first boot.
const (
	labelState     = "STATE"
	labelMeta      = "META"
	labelEphemeral = "EPHEMERAL"
)

// partition is one of a disk's, as the kernel has read its table: it has checked that, and has made the device's node.
type partition struct {
	device string // such as "sda5"
	label  string // of the GPT
}

// partitions lists those that have a label, in the order of their names, and reports whether there is a disk at all, one
// that was read for its partitions. (A loop device, or a RAM disk, is none.)
func partitions(sysfs string) (found []partition, disk bool) {
	dir := filepath.Join(sysfs, "class/block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "device")); err == nil {
			disk = true
		}
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "partition")); err != nil {
			continue
		}
		uevent, err := readShort(filepath.Join(dir, e.Name(), "uevent"))
		if err != nil {
			continue // it is gone
		}
		p := partition{}
		for line := range strings.Lines(string(uevent)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "DEVNAME":
				p.device = value
			case "PARTNAME":
				p.label = value
			}
		}
		if p.label != "" && p.device != "" && filepath.IsLocal(p.device) {
			found = append(found, p)
		}
	}
	return found, disk
}

// readShort reads a sysfs attribute, which is a page at most.
func readShort(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4096))
}

// labelled are the partitions with a label.
func labelled(all []partition, label string) []partition {
	return slices.DeleteFunc(slices.Clone(all), func(p partition) bool { return p.label != label })
}

// content is what a partition begins with.
type content uint8

const (
	blank   content = iota // nothing but noughts: it was made, and never filled
	xfs                    // which Talos has had from its beginning
	luks                   // LUKS 1 or 2
	unknown                // something else
)

// contentOf reads the beginning of a partition.
func contentOf(device string) (content, error) {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return unknown, err
	}
	defer f.Close()
	first := make([]byte, 4096)
	n, err := io.ReadFull(f, first)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return unknown, err
	}
	first = first[:n]
	switch {
	case bytes.HasPrefix(first, []byte("XFSB")): // XFS_SB_MAGIC, fs/xfs/libxfs/xfs_format.h
		return xfs, nil
	case bytes.HasPrefix(first, []byte("LUKS\xba\xbe")): // LUKS On-Disk Format Specification, 1.1 and 2
		return luks, nil
	case len(bytes.Trim(first, "\x00")) == 0:
		return blank, nil
	}
	return unknown, nil
}

// mounted is a file system that is mounted read-only where nobody else sees it.
type mounted struct{ dir *os.File }

// mountDetached mounts a device. Its log is not replayed: that would write. An XFS may have been copied with its disk, and
// have the same id as another one.
func mountDetached(fstype, device string) (*mounted, error) {
	flags := map[string][]string{"xfs": {"ro", "norecovery", "nouuid"}, "ext4": {"ro", "noload"}}
	fd, err := detached.Mount{
		Type: fstype, Source: device, Flags: flags[fstype],
		Attributes: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME,
	}.Open()
	if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "fsopen" && errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("this kernel has no %s", fstype)
	}
	if err != nil {
		return nil, err
	}
	return &mounted{os.NewFile(uintptr(fd), device)}, nil
}

// open opens a file of the file system's root, whatever it is, but no link.
func (m *mounted) open(name string) (*os.File, error) {
	return m.openat(name, unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
}

// openIn opens a file below a root: links lead where they will when it is /.
func (m *mounted) openIn(name string) (*os.File, error) {
	return m.openat(name, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

func (m *mounted) openat(name string, flags, resolve uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(m.dir.Fd()), name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | flags, Resolve: resolve,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// close unmounts it: when the descriptor is closed, nothing else holds it.
func (m *mounted) close() error {
	if err := m.dir.Close(); err != nil {
		return fmt.Errorf("unmounting: %w", err)
	}
	return nil
}
