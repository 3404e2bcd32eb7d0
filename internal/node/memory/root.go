//go:build linux

package memory

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/kernelarg"
)

// A system that is not Talos keeps its name in a file of its root. (Its static name, /etc/hostname, is no such memory: on a
// machine made from a snapshot it is another one's, and nothing in it says so.) Before that is mounted, from the initramfs, the root is
// what root= on the kernel command line names: as far as that is a partition that the kernel has found, with ext4 or XFS
// on it. Roots that have to be put together first (LVM, RAID, encryption, the network) are none that is looked into here;
// `nametag apply` is, once they are mounted.

// rootSpec is how root= names a device.
type rootSpec struct{ by, value string }

// The ways in which root= names what can be found here.
const (
	byDevice    = "DEVICE"
	byPartLabel = "PARTLABEL"
	byPartUUID  = "PARTUUID"
	byUUID      = "UUID"
	byLabel     = "LABEL"
)

// rootOf reads root=. The kernel and initramfs generators take the last one; the generators' also where it stands behind a
// "--".
func rootOf(commandLine string) (spec rootSpec, ok bool) {
	args, rest := kernelarg.Split(commandLine)
	for _, root := range kernelarg.Named(slices.Concat(args, rest), "root") {
		if !root.HasValue {
			continue
		}
		spec, ok = rootSpec{}, false
		value := root.Value
		if device, found := strings.CutPrefix(value, "/dev/"); found {
			spec, ok = rootSpec{byDevice, device}, filepath.IsLocal(device)
			// Links that udev makes, which has not run.
			for by, dir := range map[string]string{byUUID: "disk/by-uuid/", byLabel: "disk/by-label/", byPartUUID: "disk/by-partuuid/", byPartLabel: "disk/by-partlabel/"} {
				if name, found := strings.CutPrefix(device, dir); found {
					spec.by, spec.value = by, name
				}
			}
			continue
		}
		by, name, found := strings.Cut(value, "=")
		switch by {
		case byPartLabel, byPartUUID, byUUID, byLabel:
			spec, ok = rootSpec{by, name}, found && name != ""
		}
	}
	return spec, ok
}

// RootNamed reports whether a kernel command line names a root that [LookRoot] may find.
func RootNamed(commandLine string) bool {
	_, ok := rootOf(commandLine)
	return ok
}

// LookRoot looks for the memory of a system that is not Talos, on the root file system that the kernel command line names.
// It is nil where that names none that can be found here. See [Look] for the rest.
func LookRoot(ctx context.Context, c Config, commandLine string) *Looking {
	spec, ok := rootOf(commandLine)
	if !ok {
		return nil
	}
	c = c.withDefaults()
	return look(ctx, c, func() func() Recall {
		device, kind := c.find(spec)
		if device == "" {
			return nil
		}
		return func() Recall { return recallRoot(device, kind, c.Instance) }
	})
}

// find finds the device, and what is on it.
func (c Config) find(spec rootSpec) (device, fstype string) {
	entries, err := os.ReadDir(filepath.Join(c.Sys, "class/block"))
	if err != nil {
		return "", ""
	}
	for _, e := range entries {
		device := filepath.Join(c.Dev, e.Name())
		if spec.by == byDevice && e.Name() != spec.value || spec.by == byPartLabel && c.partLabel(e.Name()) != spec.value ||
			spec.by == byPartUUID && !strings.EqualFold(c.partUUID(e.Name()), spec.value) {
			continue
		}
		if _, err := os.Stat(device); err != nil || strings.HasPrefix(e.Name(), "loop") || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		found, err := superblock(device)
		if err != nil || found.fstype == "" || spec.by == byUUID && !strings.EqualFold(found.uuid, spec.value) || spec.by == byLabel && found.label != spec.value {
			continue
		}
		return device, found.fstype
	}
	return "", ""
}

func (c Config) partLabel(name string) string {
	all, _ := partitions(c.Sys)
	for _, p := range all {
		if p.device == name {
			return p.label
		}
	}
	return ""
}

// partUUID reads what the kernel calls PARTUUID (block/partitions): a GPT's own id of the partition, or the signature of an
// MBR and the partition's number. The kernel has checked the table.
func (c Config) partUUID(name string) string {
	dir := filepath.Join(c.Sys, "class/block", name)
	number, err := readShort(filepath.Join(dir, "partition"))
	if err != nil {
		return ""
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(number)))
	if err != nil {
		return ""
	}
	place, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	disk := filepath.Dir(place)
	sector := int64(512)
	if size, err := readShort(filepath.Join(disk, "queue/logical_block_size")); err == nil {
		if s, err := strconv.ParseInt(strings.TrimSpace(string(size)), 10, 32); err == nil && s >= 512 {
			sector = s
		}
	}
	f, err := os.OpenFile(filepath.Join(c.Dev, filepath.Base(disk)), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	return partUUID(f, sector, n)
}

// partUUID reads it from a disk (UEFI 2.10, 5.3; the MBR's signature at 440).
func partUUID(disk io.ReaderAt, sector int64, n int) string {
	header := make([]byte, 92)
	if _, err := disk.ReadAt(header, sector); err != nil {
		return ""
	}
	if !bytes.HasPrefix(header, []byte("EFI PART")) {
		signature := make([]byte, 4)
		if _, err := disk.ReadAt(signature, 440); err != nil || binary.LittleEndian.Uint32(signature) == 0 {
			return ""
		}
		return fmt.Sprintf("%08x-%02x", binary.LittleEndian.Uint32(signature), n)
	}
	at, entries, size := binary.LittleEndian.Uint64(header[72:]), binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
	if n < 1 || uint64(n) > uint64(entries) || size < 128 || size > 4096 || at > 1<<40 {
		return ""
	}
	id := make([]byte, 16)
	if _, err := disk.ReadAt(id, int64(at)*sector+int64(n-1)*int64(size)+16); err != nil {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(id), binary.LittleEndian.Uint16(id[4:]), binary.LittleEndian.Uint16(id[6:]), id[8:10], id[10:])
}

// identified is what a file system says of itself.
type identified struct{ fstype, uuid, label string }

// superblock reads which file system is on a device, of those that are mounted here.
func superblock(device string) (identified, error) {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return identified{}, err
	}
	defer f.Close()
	first := make([]byte, 2048)
	if _, err := io.ReadFull(f, first); err != nil {
		return identified{}, err
	}
	return identify(first), nil
}

// identify knows XFS (xfs_sb, fs/xfs/libxfs/xfs_format.h) and ext4 (ext4_super_block, fs/ext4/ext4.h).
func identify(first []byte) identified {
	name := func(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }
	switch {
	case len(first) < 2048:
		return identified{}
	case bytes.HasPrefix(first, []byte("XFSB")):
		return identified{"xfs", uuid(first[32:48]), name(first[108:120])}
	case binary.LittleEndian.Uint16(first[1024+0x38:]) == 0xef53:
		return identified{"ext4", uuid(first[1024+0x68 : 1024+0x78]), name(first[1024+0x78 : 1024+0x88])}
	}
	return identified{}
}

func uuid(b []byte) string {
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// recallRoot mounts a root and reads it.
func recallRoot(device, fstype, instance string) Recall {
	at := "the root on " + filepath.Base(device)
	m, err := mountDetached(fstype, device)
	if err != nil {
		return Recall{Why: fmt.Sprintf("%s cannot be mounted: %v", at, err)}
	}
	r := recallEither(instance, func(path string) Recall { return readRoot(m, at, path) })
	if err := m.close(); err != nil && r.Why == "" {
		r.Why = fmt.Sprintf("%s: %v", at, err)
	}
	return r
}

// readRoot reads a file of ours.
func readRoot(m *mounted, at, path string) Recall {
	f, err := m.openIn(strings.TrimPrefix(path, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return Recall{}
	}
	if err == nil {
		defer f.Close()
		var n Name
		if n, err = readName(f); err == nil {
			return Recall{Name: n, From: at}
		}
	}
	return Recall{Why: fmt.Sprintf("%s: %s: %v", at, path, err)}
}
