//go:build linux

package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nametag-boot/nametag/internal/node/replace"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
)

func TestWhichRootACommandLineNames(t *testing.T) {
	for line, want := range map[string]rootSpec{
		"":                             {},
		"quiet":                        {},
		"root=/dev/sda1 ro":            {byDevice, "sda1"},
		"root=/dev/sda1 root=UUID=ab":  {byUUID, "ab"},
		"root=PARTUUID=0a-01 ro":       {byPartUUID, "0a-01"},
		"root=LABEL=root":              {byLabel, "root"},
		"root=PARTLABEL=root":          {byPartLabel, "root"},
		`root="LABEL=root"`:            {byLabel, "root"},
		"root=/dev/disk/by-uuid/ab":    {byUUID, "ab"},
		"root=/dev/disk/by-label/x":    {byLabel, "x"},
		"root=UUID=":                   {},
		"root=/dev/../etc/passwd":      {},
		"root=nfs:server:/x":           {},
		"root=/dev/nfs":                {byDevice, "nfs"},
		"root=PARTUUID=ab/PARTNROFF=1": {byPartUUID, "ab/PARTNROFF=1"},
		"root=UUID=ab root=zfs:tank":   {}, // the last one counts
	} {
		got, ok := rootOf(line)
		if (want == rootSpec{}) {
			if ok {
				t.Errorf("%q: %v", line, got)
			}
			continue
		}
		if !ok || got != want {
			t.Errorf("%q: %v, %v; want %v", line, got, ok, want)
		}
	}
}

// gpt is the head of a disk with a table of four entries.
func gpt() []byte {
	b := make([]byte, 8192)
	copy(b[512:], "EFI PART")
	b[512+72], b[512+80], b[512+84] = 2, 4, 128
	copy(b[1024+128+16:], []byte{0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8})
	return b
}

func TestThePARTUUIDOfAPartition(t *testing.T) {
	mbr := make([]byte, 8192)
	copy(mbr[440:], []byte{0x44, 0x33, 0x22, 0x11})
	for _, tt := range []struct {
		disk []byte
		n    int
		want string
	}{
		{gpt(), 2, "12345678-9abc-def0-0102-030405060708"},
		{gpt(), 5, ""},
		{gpt(), 0, ""},
		{mbr, 3, "11223344-03"},
		{make([]byte, 8192), 1, ""},
		{nil, 1, ""},
	} {
		if got := partUUID(bytes.NewReader(tt.disk), 512, tt.n); got != tt.want {
			t.Errorf("partition %d: %q, want %q", tt.n, got, tt.want)
		}
	}
}

func FuzzGPT(f *testing.F) {
	f.Add(gpt(), 2, int64(512))
	f.Add([]byte{}, 1, int64(4096))
	f.Fuzz(func(t *testing.T, disk []byte, n int, sector int64) {
		if sector < 512 || sector > 1<<16 {
			return
		}
		if got := partUUID(bytes.NewReader(disk), sector, n); got != "" && len(got) < 11 {
			t.Fatalf("%q", got)
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Add(make([]byte, 2048))
	f.Fuzz(func(t *testing.T, first []byte) {
		if got := identify(first); got.fstype != "" && len(got.uuid) != 36 {
			t.Fatalf("%+v", got)
		}
	})
}

// A power cut right after a rename, and an outage at the next boot: the initramfs mounts the root without its journal, and is
// not to find the former name. (XFS cannot be asked for that: its log is worked off within half a minute.) As root only.
func TestANameIsOnTheDiskAtOnceForWhoeverReadsItWithoutTheJournal(t *testing.T) {
	image := newImage(t, "mkfs.ext4", "-q", "-F")
	on := t.TempDir()
	if err := unix.Mount(loop(t, image), on, "ext4", 0, ""); err != nil {
		netns.Missing(t, fmt.Sprintf("this kernel does not mount ext4: %v", err))
	}
	t.Cleanup(func() { _ = unix.Unmount(on, 0) })
	if err := replace.Settle(filepath.Join(on, "file")); errors.Is(err, unix.ENOTTY) {
		netns.Missing(t, fmt.Sprintf("this kernel does not work off the journal of ext4: %v", err))
	}
	for _, name := range []string{"web-1", "web-2"} {
		if err := (Name{Hostname: name, InstanceID: "42"}).Remember(on); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		cut := filepath.Join(t.TempDir(), "cut")
		if err := os.WriteFile(cut, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := recallRoot(loop(t, cut), "ext4", "42"); r.Name.Hostname != name {
			t.Errorf("after %s was written: %+v", name, r)
		}
	}
}

// newImage is a file of 64 MiB with a file system.
func newImage(t *testing.T, mkfs ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		netns.Missing(t, "mounting needs root")
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20)); err != nil {
		t.Fatal(err)
	}
	tool(t, mkfs[0], append(mkfs[1:], image)...)
	return image
}

// loop is a device that an image is on.
func loop(t *testing.T, image string) string {
	t.Helper()
	device := tool(t, "losetup", "-f", "--show", image)
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() })
	return device
}

// tool runs a program, without which the test is skipped.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		netns.Missing(t, fmt.Sprintf("%s: %v: %s", name, err, out))
	}
	return strings.TrimSpace(string(out))
}

// What the kernel mounts, found by each of its names and read; and nothing is written. As root only.
func TestANameOnARealFileSystem(t *testing.T) {
	for _, kind := range []struct {
		fstype string
		mkfs   []string
	}{
		{"ext4", []string{"mkfs.ext4", "-q", "-F", "-L", "the-root", "-U", "01234567-89ab-cdef-0123-456789abcdef"}},
		{"xfs", []string{"mkfs.xfs", "--unsupported", "-q", "-f", "-L", "the-root", "-m", "uuid=01234567-89ab-cdef-0123-456789abcdef"}},
	} {
		for _, place := range []string{Path, Early} {
			t.Run(kind.fstype+place, func(t *testing.T) {
				image, on := newImage(t, kind.mkfs...), t.TempDir()
				loop := loop(t, image)
				if err := unix.Mount(loop, on, kind.fstype, 0, ""); err != nil {
					netns.Missing(t, fmt.Sprintf("this kernel does not mount %s: %v", kind.fstype, err))
				}
				err := Name{Hostname: "web-1", InstanceID: "42"}.Write(filepath.Join(on, place))
				if uerr := unix.Unmount(on, 0); err != nil || uerr != nil {
					t.Fatal(err, uerr)
				}
				before, err := os.ReadFile(image)
				if err != nil {
					t.Fatal(err)
				}
				found, err := superblock(loop)
				if err != nil || found != (identified{kind.fstype, "01234567-89ab-cdef-0123-456789abcdef", "the-root"}) {
					t.Errorf("%+v, %v", found, err)
				}
				r := recallRoot(loop, found.fstype, "42")
				if r.Name.Hostname != "web-1" || r.Name.InstanceID != "42" || r.From == "" {
					t.Errorf("%+v", r)
				}
				after, err := os.ReadFile(image)
				if err != nil || !bytes.Equal(before, after) {
					t.Errorf("it was written to: %v", err)
				}
			})
		}
	}
}
